//! Asks the C compiler for the values of expressions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

const INCLUDES: &str = "\
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <linux/types.h>
#include <linux/ioctl.h>
#include <linux/blkdev.h>
#include <linux/blkzoned.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/ublk_cmd.h>
";

/// The values of `expressions`, by expression, as C computes them with the headers in `include`.
pub(crate) fn evaluate(include: &Path, expressions: &[&str]) -> BTreeMap<String, i128> {
    let dir = Scratch::new();
    let source = dir.0.join("values.c");
    let binary = dir.0.join("values");
    fs::write(&source, program(expressions)).expect("the scratch directory is writable");

    let mut compile = Command::new("cc");
    compile.args(["-std=gnu11", "-Wall", "-Werror", "-isystem"]).arg(include);
    if let Some(asm) = asm_dir(include) {
        compile.arg("-isystem").arg(asm);
    }
    output(compile.arg(&source).arg("-o").arg(&binary));

    output(&mut Command::new(&binary))
        .lines()
        .zip(expressions)
        .map(|(line, expression)| ((*expression).to_owned(), line.parse().expect("a number")))
        .collect()
}

fn program(expressions: &[&str]) -> String {
    let mut program = format!("{INCLUDES}int main(void)\n{{\n");
    for expression in expressions {
        program += &format!("\tprintf(\"%lld\\n\", (long long)({expression}));\n");
    }
    program + "\treturn 0;\n}\n"
}

/// Debian keeps `asm/` in a directory named after the architecture; elsewhere the compiler knows.
fn asm_dir(include: &Path) -> Option<PathBuf> {
    let triple = match env::consts::ARCH {
        "powerpc64" => "powerpc64le-linux-gnu".to_owned(),
        "arm" => "arm-linux-gnueabihf".to_owned(),
        arch => format!("{arch}-linux-gnu"),
    };
    Some(include.join(triple)).filter(|dir| dir.join("asm/types.h").is_file())
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot run: {e}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaints}", output.status);
    String::from_utf8(output.stdout).expect("digits")
}

/// A directory that goes with its owner, whether the test passes or not.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("header-test-{}", process::id()));
        fs::create_dir_all(&dir).expect("cargo's directory for tests is writable");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
