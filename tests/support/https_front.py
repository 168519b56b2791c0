"""TLS in front of an HTTP server. Usage: https_front.py PORT CERTIFICATE KEY; prints its own port. Ends with its standard input."""
import os
import socket
import ssl
import sys
import threading

port, certificate, key = int(sys.argv[1]), *sys.argv[2:4]
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
    for end in (source, sink):
        try:
            end.close()
        except OSError:
            pass


def serve(client):
    try:
        inside = context.wrap_socket(client, server_side=True)
        behind = socket.create_connection(("127.0.0.1", port))
    except OSError:
        return
    threading.Thread(target=pump, args=(inside, behind), daemon=True).start()
    pump(behind, inside)


def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
sys.stdin.read()
os._exit(0)
