use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::error::Code;
use crate::remote::ends::{Ends, Hearing};
use crate::remote::{Job, Ticket};
use crate::tag::Tag;
use crate::targets::StepKind;

/// What the server of a test answers to a request, besides the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Right,
    /// Whole file, 200.
    Whole,
    /// This status.
    Status(u16),
    /// The range begins a byte later.
    Shifted,
    /// The connection ends in the middle of the bytes.
    Torn,
    /// Another mark.
    Changed,
    /// A longer file, with the same mark.
    Grown,
    Compressed,
    /// No mark at all.
    Unmarked,
    /// The connection stays open, and nothing comes.
    Mute,
}

const SIZE: usize = 8192;

fn byte(at: usize) -> u8 {
    u8::try_from(at / 7 % 251).unwrap()
}

/// A server; `way` says how to answer the request of a number. Returns the address, and counts requests.
fn serve(way: impl Fn(usize) -> Way + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/disk.img?secret", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, way) = (Arc::clone(&asked), Arc::new(way));
    thread::spawn(move || {
        for client in listener.incoming() {
            let (count, way) = (Arc::clone(&count), Arc::clone(&way));
            thread::spawn(move || while answer(client.as_ref().unwrap(), &count, &*way) {});
        }
    });
    (url, asked)
}

/// Answers a request of a connection; returns whether there may be more.
fn answer(client: &TcpStream, count: &AtomicUsize, way: &dyn Fn(usize) -> Way) -> bool {
    let mut lines = BufReader::new(client).lines().map_while(std::result::Result::ok);
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
    let Some(range) = field("range: bytes=") else { return false };
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let way = way(count.fetch_add(1, Ordering::Relaxed));
    let mark = if way == Way::Changed { "\"2\"" } else { "\"1\"" };
    if field("if-match: ").is_some_and(|wanted| wanted != "\"1\"") {
        return write(client, "HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n", &[]);
    }
    let bytes: Vec<u8> = (first..=last).map(byte).collect();
    let size = if way == Way::Grown { SIZE + 512 } else { SIZE };
    let (from, to) = if way == Way::Shifted { (first + 1, last + 1) } else { (first, last) };
    let mut status = "206 Partial Content".to_owned();
    let mut more = format!("etag: {mark}\r\ncontent-range: bytes {from}-{to}/{size}\r\n");
    match way {
        Way::Whole => status = "200 OK".into(),
        Way::Status(code) => status = format!("{code} No"),
        Way::Compressed => more.push_str("content-encoding: gzip\r\n"),
        Way::Unmarked => more = format!("content-range: bytes {from}-{to}/{size}\r\n"),
        Way::Mute => thread::sleep(Duration::from_secs(60)),
        _ => {}
    }
    let head = format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n", bytes.len());
    match way {
        Way::Torn => {
            write(client, &head, &bytes[..bytes.len() / 2]);
            drop(client.shutdown(std::net::Shutdown::Both));
            false
        }
        _ => write(client, &head, &bytes),
    }
}

fn write(mut client: &TcpStream, head: &str, bytes: &[u8]) -> bool {
    client.write_all(head.as_bytes()).and_then(|()| client.write_all(bytes)).is_ok()
}

fn options() -> HttpOptions {
    HttpOptions {
        answer_timeout: Duration::from_millis(500),
        retry_timeout: Duration::from_secs(20),
        ..HttpOptions::default()
    }
}

/// Reads some bytes of a file whose server answers the first request right, and the others so.
fn read_of(
    way: impl Fn(usize) -> Way + Send + Sync + 'static,
    options: HttpOptions,
) -> (i32, Vec<u8>) {
    let (url, _asked) = serve(move |number| if number == 0 { Way::Right } else { way(number) });
    let http = Http::open(&url, options).unwrap();
    let mut memory = vec![0xee_u8; 1000];
    let job = Job {
        ticket: Ticket { tag: Tag::new(0), step: 0 },
        kind: StepKind::Read,
        offset: 100,
        length: 1000,
        memory: memory.as_mut_ptr(),
    };
    (http.fetch(&job, &mut Vec::new()), memory)
}

fn right() -> Vec<u8> {
    (100..1100).map(byte).collect()
}

#[test]
fn a_range_of_the_file_is_read() {
    assert_eq!(read_of(|_| Way::Right, options()), (1000, right()));
}

#[test]
fn what_may_pass_is_tried_again() {
    for way in [Way::Torn, Way::Status(503), Way::Status(429), Way::Mute] {
        let read = read_of(move |number| if number < 3 { way } else { Way::Right }, options());
        assert_eq!(read, (1000, right()), "{way:?}");
    }
}

#[test]
fn an_answer_that_is_not_the_range_of_the_version_changes_no_byte() {
    let ways = [
        (Way::Changed, libc::ESTALE),
        (Way::Grown, libc::ESTALE),
        (Way::Shifted, libc::EIO),
        (Way::Whole, libc::EIO),
        (Way::Compressed, libc::EIO),
        (Way::Status(404), libc::EIO),
        (Way::Status(412), libc::ESTALE),
    ];
    for (way, errno) in ways {
        assert_eq!(read_of(move |_| way, options()), (-errno, vec![0xee; 1000]), "{way:?}");
    }
}

#[test]
fn a_server_that_stays_away_ends_the_read() {
    let limit = HttpOptions { retry_timeout: Duration::from_millis(700), ..options() };
    for way in [Way::Torn, Way::Status(500), Way::Mute] {
        let read = read_of(move |_| way, limit.clone());
        assert_eq!(read, (-libc::EIO, vec![0xee; 1000]), "{way:?}");
    }
}

#[test]
fn a_file_that_cannot_be_served_is_refused_with_the_reason_and_without_the_query() {
    let ways = [
        (Way::Whole, Code::BadBackend, "knows no ranges"),
        (Way::Unmarked, Code::BadBackend, "neither ETag nor Last-Modified"),
        (Way::Compressed, Code::BadBackend, "compressed"),
        (Way::Status(404), Code::NoBackend, "answers 404"),
        (Way::Status(403), Code::Permission, "answers 403"),
        (Way::Mute, Code::Timeout, "in time"),
    ];
    for (way, code, message) in ways {
        let (url, _asked) = serve(move |_| way);
        let error = Http::open(&url, options()).unwrap_err();
        assert_eq!(error.code, code, "{way:?}: {error}");
        assert!(error.message.contains(message), "{error}");
        assert!(error.hint.is_some(), "{error}");
        assert!(!error.message.contains("secret"), "{error}");
    }
    let texts = ["nowhere", "ftp://host/a", "http://", "http://user:hunter2@host/a"];
    for text in texts {
        let error = Http::open(text, options()).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{text}: {error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}

#[test]
fn no_more_requests_than_connections_are_under_way() {
    let most = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let (url, asked) = serve(move |_| {
        let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
        seen.1.fetch_max(now, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        seen.0.fetch_sub(1, Ordering::SeqCst);
        Way::Right
    });
    let http = Arc::new(Http::open(&url, HttpOptions { connections: 3, ..options() }).unwrap());
    let ends = Arc::new(Ends::new(20).unwrap());
    let mut hearing = Hearing::new(20);
    let mut memory = vec![0_u8; 20 * 100];
    for tag in Tag::all(20) {
        let at = tag.index() * 100;
        let memory = memory[at..].as_mut_ptr();
        let ticket = Ticket { tag, step: 0 };
        let job = Job { ticket, kind: StepKind::Read, offset: at as u64, length: 100, memory };
        http.submit(Read { job, ends: Arc::clone(&ends) });
    }
    let mut told = Vec::new();
    while told.len() < 20 {
        told.append(&mut hearing.hear(&ends));
        thread::sleep(Duration::from_millis(5));
    }
    assert!(told.iter().all(|&(_, result)| result == 100), "{told:?}");
    assert!(memory.iter().enumerate().all(|(at, &read)| read == byte(at)));
    assert_eq!(asked.load(Ordering::SeqCst), 21);
    assert!((2..=3).contains(&most.1.load(Ordering::SeqCst)), "{most:?}");
}
