//! Errors of opening a file on a web server, for people.

use super::client::{Client, Failure};
use crate::error::{Code, Error};

pub(super) fn failed(client: &Client, failure: &Failure) -> Error {
    let name = client.name();
    let cannot = |why: String| format!("cannot read {name}: {why}");
    match failure {
        Failure::Network(ureq::Error::Timeout(_)) => {
            Error::new(Code::Timeout, cannot("the server does not answer in time".into()))
                .hint("is the server slow? answerTimeoutMs is the limit")
        }
        Failure::Network(error) if failure.is_distrust() => {
            Error::new(Code::BadBackend, cannot(in_words(error))).hint(
                "for a server with certificates of your own: authorities names the file with the \
                 certificate of the authority",
            )
        }
        Failure::Network(error) => Error::new(Code::NoBackend, cannot(in_words(error)))
            .hint("does the host's name resolve, and is the server running? `curl -I URL` tells"),
        Failure::Status { code: code @ (401 | 403), .. } => {
            Error::new(Code::Permission, cannot(format!("the server answers {code}")))
                .hint("ublk sends no passwords: an address with a signature in its query works")
        }
        Failure::Status { code, .. } => {
            let hint = match code {
                404 | 410 => "is the path right? `curl -I URL` tells",
                416 => "is the file empty?",
                _ => "`curl -I URL` shows what the server answers",
            };
            Error::new(Code::NoBackend, cannot(format!("the server answers {code}"))).hint(hint)
        }
        Failure::Changed => Error::new(Code::BadBackend, cannot("the file changes".into())),
        Failure::Wrong(why) => Error::new(Code::BadBackend, cannot((*why).into())).hint(
            "serve the file by nginx, Apache or an object store: they know ranges and versions",
        ),
    }
}

fn in_words(error: &ureq::Error) -> String {
    let text = match error {
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    // std says "Connection refused (os error 111)".
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
