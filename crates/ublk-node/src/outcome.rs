//! How results cross into JavaScript: `{ value }` or `{ failure }`.

use napi::bindgen_prelude::{Object, ToNapiValue};
use napi::{Env, sys};
use napi_derive::napi;
use ublk_core::error::Error;

/// An error as data; `src/errors.ts` makes the class of it.
#[derive(Debug)]
#[napi(object)]
pub struct Failure {
    /// `ERR_UBLK_*`.
    pub code: String,
    /// What was tried and what came of it.
    pub message: String,
    /// What the kernel answered, positive.
    pub errno: Option<i32>,
    /// The system call or ublk command that answered.
    pub syscall: Option<String>,
    /// What is probably wrong, and what to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A defect of ours.
    pub(crate) fn internal(what: &str) -> Self {
        Self {
            code: "ERR_UBLK_INTERNAL".into(),
            message: format!("internal error: {what}"),
            errno: None,
            syscall: None,
            hint: Some("this is a defect of the package ublk; please report it".into()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: error.code.as_str().into(),
            message: error.message,
            errno: error.errno,
            syscall: error.syscall.map(Into::into),
            hint: error.hint,
        }
    }
}

impl<T> From<Result<T, Error>> for Outcome<T> {
    fn from(result: Result<T, Error>) -> Self {
        Self(result.map_err(Failure::from))
    }
}

/// A result on its way to JavaScript.
#[derive(Debug)]
pub struct Outcome<T>(pub(crate) Result<T, Failure>);

impl<T: ToNapiValue> ToNapiValue for Outcome<T> {
    unsafe fn to_napi_value(env: sys::napi_env, outcome: Self) -> napi::Result<sys::napi_value> {
        let mut object = Object::new(&Env::from_raw(env))?;
        match outcome.0 {
            Ok(value) => object.set("value", value)?,
            Err(failure) => object.set("failure", failure)?,
        }
        // SAFETY: `env` is the environment that the caller vouches for, and made the object.
        unsafe { Object::to_napi_value(env, object) }
    }
}
