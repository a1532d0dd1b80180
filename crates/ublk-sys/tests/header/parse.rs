//! The names that `linux/ublk_cmd.h` declares. Knows as much C as the kernel's style needs.

use std::collections::BTreeSet;

/// Names of macros, structs and inline functions, and `struct.field` for every field.
pub(crate) fn declarations(header: &str) -> BTreeSet<String> {
    let text = without_comments(header).replace("\\\n", " ");
    let mut names = BTreeSet::new();
    let mut code = String::new();
    for line in text.lines() {
        match line.trim_start().strip_prefix('#') {
            Some(directive) => names.extend(macro_name(directive)),
            None => {
                code += line;
                code.push('\n');
            }
        }
    }
    struct_names(&code, &mut names);
    function_names(&code, &mut names);
    names
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        kept += before;
        rest = comment.split_once("*/").expect("comments end").1;
    }
    kept + rest
}

/// `define UBLK_X ...`, but not the include guard.
fn macro_name(directive: &str) -> Option<String> {
    let mut words = directive.split_whitespace();
    let name = words.by_ref().nth(1).filter(|_| directive.trim_start().starts_with("define"))?;
    (!name.ends_with("_INC_H")).then(|| identifier(name).to_owned())
}

/// `struct name { ... };`, where the body may hold anonymous unions.
fn struct_names(code: &str, names: &mut BTreeSet<String>) {
    for after in code.split("\nstruct ").skip(1) {
        let name = identifier(after);
        let Some(body) = after[name.len()..].trim_start().strip_prefix('{') else { continue };
        let body = body.split_once("\n}").expect("structs end").0;
        names.insert(name.to_owned());
        for statement in body.split([';', '{', '}']) {
            let Some(declarator) = statement.split_whitespace().last() else { continue };
            if declarator != "union" {
                names.insert(format!("{name}.{}", identifier(declarator)));
            }
        }
    }
}

/// `static inline T name(...)`.
fn function_names(code: &str, names: &mut BTreeSet<String>) {
    for after in code.split("\nstatic ").skip(1) {
        let head = after.split_once('(').expect("inline functions have parameters").0;
        names.extend(head.split_whitespace().last().map(str::to_owned));
    }
}

/// The identifier that `text` begins with.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}
