//! What connections may cost before they have proven a name.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ringfence_verifier::record::Kind;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::harness::client::run;
use crate::harness::ledger;
use crate::harness::support::wire::Wire;
use crate::harness::support::{Demo, Served, text};

const ENGINEER: &str = "us-engineer";

/// A connection from one of the machine's own addresses: 127.0.0.LAST.
fn connect_from(last: u8, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn log_in(last: u8, port: u16, user: &str, database: &str, password: &str) -> Result<Wire, String> {
    Wire::over(Box::new(connect_from(last, port)), user, database, password)
}

/// Whether the gateway has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// How many connections are open once the gateway has closed those that are too many.
fn open_of(streams: &mut [TcpStream]) -> usize {
    let until = Instant::now() + Duration::from_secs(10);
    let mut open = streams.len();
    while open > 250 && Instant::now() < until {
        open = streams.iter_mut().map(is_closed).filter(|closed| !closed).count();
    }
    open
}

/// Version 2 of the PROXY protocol, for a client at 192.0.2.LAST.
fn header(last: u8) -> Vec<u8> {
    let addresses = [192, 0, 2, last, 10, 0, 0, 1, 0x12, 0x34, 0x15, 0x38];
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x21, 0x11, 0, 12], &addresses].concat()
}

fn through_balancer(last: u8, port: u16) -> Result<Wire, String> {
    let mut stream = connect_from(5, port);
    stream.write_all(&header(last)).unwrap();
    Wire::over(Box::new(stream), ENGINEER, "us", "demo")
}

/// Ends a gateway in order, so that what was summed up is on record.
fn end(served: &mut Served) {
    let sent = Command::new("kill").arg("-TERM").arg(served.child.id().to_string()).status();
    assert!(sent.is_ok_and(|sent| sent.success()));
    // `wait` would close the pipe that keeps it alive.
    let ended = loop {
        if let Some(ended) = served.child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success(), "{ended}");
}

fn refusals(demo: &Demo, name: &str, from: u64) -> Vec<Value> {
    ledger::records(&demo.dir.join(format!("ledger-{name}")), from, Kind::Refused)
}

/// How many refusals are summed up in records.
fn times(records: &[Value]) -> u64 {
    records.iter().map(|record| record["times"].as_u64().unwrap_or(1)).sum()
}

/// One demo for all; each test has a gateway of its own beside it.
fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| Demo::start("strangers"))
}

/// More silent connections than the gateway has room for, and a login beside them, from the same
/// address.
#[test]
fn silent_connections_take_no_place_of_others() {
    let demo = demo();
    let served = demo.serve("silent", "");
    let mut silent: Vec<_> = (0..700).map(|_| connect_from(1, served.port)).collect();
    let wire = Wire::connect(served.port, ENGINEER, "us");
    assert!(wire.is_ok(), "{:?}", wire.err());
    let other = log_in(2, served.port, ENGINEER, "us", "demo");
    assert!(other.is_ok(), "{:?}", other.err());
    let open = open_of(&mut silent);
    assert!((1..=250).contains(&open), "{open} silent connections are open");
}

/// Wrong passwords cost the ledger next to nothing, and what strangers say is not kept.
#[test]
fn wrong_passwords_fill_no_ledger() {
    let demo = demo();
    let mut served = demo.serve("wrong", "");
    let from = ledger::size(&demo.dir.join("ledger-wrong"));
    let port = served.port;
    let secret = "my-secret-".repeat(400);
    let tries = 40;
    std::thread::scope(|scope| {
        for last in 10..20 {
            let secret = &secret;
            scope.spawn(move || {
                for n in 0..tries / 10 {
                    let user = if n % 2 == 0 { "nobody".to_owned() } else { format!("{secret}-{n}") };
                    let told = log_in(last, port, &user, secret, "wrong").err().unwrap();
                    assert!(told.contains("password authentication failed"), "{told}");
                    assert!(told.len() < 400, "{} bytes", told.len());
                }
            });
        }
    });
    end(&mut served);
    let records = refusals(demo, "wrong", from);
    assert_eq!(times(&records), tries, "{records:?}");
    assert!(records.len() <= 20, "one of each address at once, and the rest in one: {records:?}");
    let all = serde_json::to_string(&records).unwrap();
    assert!(all.len() < 6000, "{} bytes for {tries} logins", all.len());
    assert!(!all.contains("my-secret"), "{all}");
    assert!(records.iter().all(|record| record["address"].as_str().is_some_and(|a| a.starts_with("127."))));
}

/// Guesses at one name are slowed, and nobody is locked out.
#[test]
fn guesses_are_slowed_and_nobody_is_locked_out() {
    let demo = demo();
    let served = demo.serve("guesses", "");
    let wrong = |last| log_in(last, served.port, ENGINEER, "us", "wrong").err().unwrap();
    let begun = Instant::now();
    for _ in 0..12 {
        assert!(wrong(3).contains("password authentication failed"));
    }
    // A quarter of a second each is what a wrong password costs anyway.
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    let told = std::thread::scope(|scope| {
        let many: Vec<_> = (0..40).map(|_| scope.spawn(|| wrong(3))).collect();
        many.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(told.iter().any(|told| told.contains("too many wrong passwords")), "{told:?}");
    let right = log_in(4, served.port, ENGINEER, "us", "demo");
    assert!(right.is_ok(), "from elsewhere: {:?}", right.err());
    let until = Instant::now() + Duration::from_secs(20);
    while log_in(3, served.port, ENGINEER, "us", "demo").is_err() {
        assert!(Instant::now() < until, "who was slowed is let in after a while");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Guesses that are made at once are looked at one by one, too.
#[test]
fn guesses_at_once_are_slowed() {
    let demo = demo();
    let served = demo.serve("at-once", "");
    let all_are_here = std::sync::Barrier::new(100);
    let wrong = || {
        all_are_here.wait();
        log_in(3, served.port, ENGINEER, "us", "wrong").err().unwrap()
    };
    let answers = std::thread::scope(|scope| {
        let many: Vec<_> = (0..100).map(|_| scope.spawn(wrong)).collect();
        many.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let looked_at = answers.iter().filter(|answer| answer.contains("password authentication failed"));
    // Five are free, and of the others those that wait less than ten seconds are looked at.
    let looked_at = looked_at.count();
    assert!((5..=25).contains(&looked_at), "{looked_at} of 100: {answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("too many wrong passwords")), "{answers:?}");
}

/// A login that is not gone on with is no guess.
#[test]
fn what_is_silent_in_front_of_a_password_costs_nobody_time() {
    let demo = demo();
    let served = demo.serve("begun", "");
    for _ in 0..6 {
        assert!(log_in(3, served.port, ENGINEER, "us", "wrong").is_err());
    }
    let body = format!("user\0{ENGINEER}\0database\0us\0\0");
    let length = u32::try_from(body.len() + 8).unwrap();
    let startup = [&length.to_be_bytes()[..], &(3_u32 << 16).to_be_bytes(), body.as_bytes()].concat();
    let _begun: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = connect_from(3, served.port);
            stream.write_all(&startup).unwrap();
            stream
        })
        .collect();
    // They have been read by now.
    std::thread::sleep(Duration::from_millis(500));
    let right = log_in(3, served.port, ENGINEER, "us", "demo");
    assert!(right.is_ok(), "{:?}", right.err());
}

/// Refusals of many addresses do not hide at whose name somebody guesses.
#[test]
fn noise_hides_no_name() {
    let demo = demo();
    let mut served = demo.serve("noise", "");
    let from = ledger::size(&demo.dir.join("ledger-noise"));
    let port = served.port;
    std::thread::scope(|scope| {
        for last in 10..=240 {
            scope.spawn(move || drop(log_in(last, port, &format!("nobody-{last}"), "us", "wrong")));
        }
    });
    assert!(log_in(250, port, ENGINEER, "us", "wrong").is_err());
    end(&mut served);
    let records = refusals(demo, "noise", from);
    assert!(records.iter().any(|record| record["principal"] == ENGINEER), "{records:?}");
    assert_eq!(times(&records), 232, "{records:?}");
}

/// Where file descriptors run short, silence gives way to logins.
#[test]
fn silent_connections_take_no_file_of_others() {
    let demo = demo();
    let served = demo.serve("files", "ulimit -n 500;");
    let mut silent: Vec<_> = (20..25).cycle().take(360).map(|last| connect_from(last, served.port)).collect();
    let wire = Wire::connect(served.port, ENGINEER, "us");
    assert!(wire.is_ok(), "{:?}", wire.err());
    let open = open_of(&mut silent);
    assert!((1..=250).contains(&open), "{open} silent connections are open");
}

/// Guesses at cancel keys do not keep others from cancelling.
#[test]
fn guesses_at_cancel_keys_keep_nobody_from_cancelling() {
    let demo = demo();
    let served = demo.serve("cancels", "");
    let cancel = |last, key: &[u8]| {
        let mut stream = connect_from(last, served.port);
        let packet = [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), key].concat();
        stream.write_all(&packet).unwrap();
        let _ = stream.read(&mut [0; 1]);
    };
    let mut wire = Wire::connect(served.port, ENGINEER, "us").unwrap();
    let mut wrong = wire.key.clone();
    wrong[7] ^= 1;
    for _ in 0..60 {
        cancel(6, &wrong);
    }
    let key = wire.key.clone();
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(300));
                cancel(7, &key);
            }
        });
        run(&mut wire, "select pg_sleep(15)")
    });
    assert_eq!(answer.sqlstate(), Some("57014"), "{answer:?}");
}

/// A balancer says whom it brings, and is not one address.
#[test]
fn a_balancer_says_whom_it_brings() {
    let demo = demo();
    let mut served = demo.serve_with("balanced", "", |text| {
        let text = text.replace("[gateway]\n", "[gateway]\nproxies = [\"127.0.0.5\", \"10.0.0.0/8\"]\n");
        text.replace("key = \"keys/tls.key\"\n", "key = \"keys/tls.key\"\nrequired = false\n")
    });
    let from = ledger::size(&demo.dir.join("ledger-balanced"));
    let wire = through_balancer(7, served.port);
    assert!(wire.is_ok(), "{:?}", wire.err());
    let log = demo.dir.join("ledger-balanced");
    let is_seen = || {
        let opened = ledger::records(&log, from, Kind::SessionOpened);
        opened.iter().any(|record| record["address"] == "192.0.2.7:4660")
    };
    let until = Instant::now() + Duration::from_secs(10);
    while !is_seen() {
        assert!(Instant::now() < until, "no session is on record with the client's own address");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Who is silent behind a balancer takes no place of others behind it.
    let mut silent: Vec<_> = (0..500)
        .map(|_| {
            let mut stream = connect_from(5, served.port);
            stream.write_all(&header(8)).unwrap();
            stream
        })
        .collect();
    assert!(through_balancer(7, served.port).is_ok());
    let open = open_of(&mut silent);
    assert!((1..=250).contains(&open), "{open} silent connections of one address are open");
    // It has to say it, and nobody else may.
    assert!(log_in(5, served.port, ENGINEER, "us", "demo").is_err());
    let mut stranger = connect_from(6, served.port);
    stranger.write_all(&header(7)).unwrap();
    assert!(Wire::over(Box::new(stranger), ENGINEER, "us", "demo").is_err());
    // When it speaks for itself its own address counts.
    let mut own = connect_from(5, served.port);
    own.write_all(&[b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20, 0, 0, 0]].concat()).unwrap();
    let own = Wire::over(Box::new(own), ENGINEER, "us", "demo");
    assert!(own.is_ok(), "{:?}", own.err());
    end(&mut served);
}

/// Without a word in the configuration, clients on other machines need TLS.
#[test]
fn other_machines_need_tls() {
    let demo = demo();
    let served = demo.serve_with("clear", "", |text| {
        text.replace("[gateway]\n", "[gateway]\nproxies = [\"127.0.0.5\"]\n")
    });
    let told = through_balancer(7, served.port).err().unwrap();
    assert!(told.contains("with TLS only"), "{told}");
    drop(served);
    let config = std::fs::read_to_string(demo.dir.join("ringfence.toml")).unwrap();
    let (before, after) = config.split_once("[gateway.tls]").unwrap();
    let config = format!("{before}{}", &after[after.find("\n[").unwrap()..]);
    let config = config.replace(&format!("127.0.0.1:{}", demo.port), "0.0.0.0:0");
    std::fs::write(demo.dir.join("bare.toml"), config).unwrap();
    let told = demo.ringfence_with("bare", &["serve"]);
    assert!(!told.status.success());
    assert!(text(&told).contains("gateway.tls must name a certificate"), "{}", text(&told));
}
