"""TLS in front of a server. Before a PostgreSQL socket, as a server with ssl = on speaks it: SSLRequest, then a handshake, then
the protocol. Before a TCP port, a handshake at once, as for HTTPS.

Usage: tls_front.py SOCKET-OR-PORT CERTIFICATE KEY; prints its port. Ends with its standard input.
"""
import socket
import ssl
import sys
import threading

path, certificate, key = sys.argv[1:4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    try:
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def serve(client):
    try:
        if path.isdigit():
            secure = context.wrap_socket(client, server_side=True)
            store = socket.create_connection(("127.0.0.1", int(path)))
        else:
            assert client.recv(8) == bytes([0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F]), "no SSLRequest"
            client.sendall(b"S")
            secure = context.wrap_socket(client, server_side=True)
            store = socket.socket(socket.AF_UNIX)
            store.connect(path)
    except (OSError, AssertionError):
        client.close()
        return
    threading.Thread(target=pump, args=(secure, store), daemon=True).start()
    pump(store, secure)


def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
sys.stdin.read()
