//! Sizes: long functions, long files, and `mod.rs` files that hold more than the map of a module.

use super::rules::{Finding, Rule};
use super::tree::Tree;

/// Lines of a function, from `fn` to its closing brace, comments and blank lines included.
const FN_LINES_MAX: usize = 70;
/// Lines of a file without its test code.
const FILE_LINES_MAX: usize = 600;

/// Functions over 70 lines, outside test code. A nested function counts within the outer one too.
pub fn functions(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in tree.rust() {
        for function in rust.functions() {
            let (line, lines) = (function.span.first, function.span.lines());
            if lines > FN_LINES_MAX && !rust.is_test(line) {
                let what = format!(
                    "`{}` has {lines} lines, {FN_LINES_MAX} at most: give its steps names of their own",
                    function.name
                );
                findings.push(Finding::new(&file.path, line, Rule::FnLines, what));
            }
        }
    }
}

/// Files over 600 lines, test code not counted.
pub fn files(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in tree.rust().filter(|(_, rust)| !rust.all_test) {
        let all = file.text.lines().count();
        let tests: usize = rust.tests.iter().map(|span| span.lines()).sum();
        let lines = all.saturating_sub(tests);
        if lines > FILE_LINES_MAX {
            let what = format!(
                "{lines} lines without tests, {FILE_LINES_MAX} at most: split it by what it talks about"
            );
            findings.push(Finding::new(&file.path, 0, Rule::FileLines, what));
        }
    }
}

/// Items that do not belong in a `mod.rs`.
const ITEMS: [&str; 9] =
    ["fn", "impl", "struct", "enum", "trait", "const", "static", "type", "macro_rules"];

/// Files named `mod.rs` that hold anything but documentation, declarations and re-exports.
pub fn mod_files(tree: &Tree, findings: &mut Vec<Finding>) {
    let mods = tree.rust().filter(|(file, rust)| file.name() == "mod.rs" && !rust.all_test);
    for (file, rust) in mods {
        let item = (0..rust.len())
            .find(|at| ITEMS.contains(&rust.text(*at)) && !rust.is_test(rust.line(*at)));
        if let Some(at) = item {
            let what = format!(
                "`{}` in a mod.rs, which only documents, declares and re-exports: move it to a file with a name",
                rust.text(at)
            );
            findings.push(Finding::new(&file.path, rust.line(at), Rule::ModRs, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_of_70_lines_passes_and_one_of_71_does_not() {
        let long = format!("{}{}", function("good", 70), function("bad", 71));
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("free", 200));
        let tree = Tree::of(&[("src/a.rs", &long), ("src/b.rs", &in_tests), ("tests/c.rs", &long)]);
        let mut findings = Vec::new();
        functions(&tree, &mut findings);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("src/a.rs", 71));
        assert!(findings[0].what.starts_with("`bad` has 71 lines"), "{}", findings[0].what);
    }

    #[test]
    fn test_code_does_not_count_in_a_files_length() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(900));
        let full = format!("{}{tests}", "// x\n".repeat(600));
        let over = format!("{}{tests}", "// x\n".repeat(601));
        let tree = Tree::of(&[("src/a.rs", &full), ("src/b.rs", &over), ("src/tests.rs", &over)]);
        let mut findings = Vec::new();
        files(&tree, &mut findings);
        assert_eq!(findings.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["src/b.rs"]);
    }

    #[test]
    fn a_mod_file_only_documents_declares_and_re_exports() {
        let good = "//! Docs about fn and impl.\nmod a;\npub mod b;\npub use a::{X, r#type as t};\n#[cfg(test)]\nmod tests { fn t() {} }\n";
        let bad = "//! Docs.\nmod a;\n\nimpl X {}\nfn f() {}\n";
        let tree = Tree::of(&[
            ("src/a/mod.rs", good),
            ("src/b/mod.rs", bad),
            ("tests/common/mod.rs", bad),
            ("src/c.rs", bad),
        ]);
        let mut findings = Vec::new();
        mod_files(&tree, &mut findings);
        let places: Vec<_> = findings.iter().map(|f| (f.path.as_str(), f.line)).collect();
        assert_eq!(places, [("src/b/mod.rs", 4)]);
    }
}
