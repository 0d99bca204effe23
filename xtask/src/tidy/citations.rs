//! What documents and comments name must exist: numbered behaviours, sections of pages, invariants,
//! linked files, and the files and symbols that ARCHITECTURE.md points at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::shell::root;

/// What citations may refer to.
pub struct Known {
    /// Numbers of behaviours, such as `D12`.
    behaviours: BTreeSet<String>,
    /// Page and number of its sections, such as `disk.md` and `3`.
    sections: BTreeSet<(String, String)>,
    /// Numbers of ARCHITECTURE.md's invariants.
    invariants: BTreeSet<String>,
    /// Every file of the repository.
    files: Vec<PathBuf>,
}

impl Known {
    /// Reads the pages.
    ///
    /// # Errors
    /// A page is missing.
    pub fn read(files: Vec<PathBuf>) -> Result<Self, String> {
        let page = |path: &str| {
            std::fs::read_to_string(root().join(path)).map_err(|e| format!("{path}: {e}"))
        };
        let behaviours = behaviours(&page("docs/reference/semantics.md")?);
        let invariants = invariants(&page("ARCHITECTURE.md")?);
        let mut sections = BTreeSet::new();
        for path in files.iter().filter(|path| path.starts_with("docs/reference")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let numbers = section_numbers(&page(&path.display().to_string())?);
            sections.extend(numbers.into_iter().map(|number| (name.clone(), number)));
        }
        Ok(Self { behaviours, sections, invariants, files })
    }

    /// Checks the citations of one file, with its path from the root.
    pub fn check(&self, path: &Path, text: &str, findings: &mut Vec<String>) {
        let mut missing = |line: usize, what: String| {
            findings.push(format!("{}:{line}: {what} does not exist", path.display()));
        };
        let is_page = path.starts_with("docs/reference");
        for (line, at) in text.lines().zip(1..) {
            if path.extension().is_some_and(|e| e == "rs") && !is_comment(line) {
                continue;
            }
            for number in behind(line, "semantics ").filter(|_| !is_page) {
                if is_behaviour(number) && !self.behaviours.contains(number) {
                    missing(at, format!("behaviour {number}"));
                }
            }
            for number in behind(line, "nvariant ") {
                if number.bytes().all(|b| b.is_ascii_digit()) && !self.invariants.contains(number) {
                    missing(at, format!("invariant {number}"));
                }
            }
            for (page, number) in cited_sections(line) {
                if !self.sections.contains(&(page.to_owned(), number.to_owned())) {
                    missing(at, format!("section {number} of {page}"));
                }
            }
            if path.extension().is_some_and(|e| e == "md") {
                for target in links(line).filter(|target| !self.resolves(path, target)) {
                    missing(at, target.to_owned());
                }
                for name in named_files(line).filter(|name| !self.has_file(name)) {
                    missing(at, name.to_owned());
                }
            }
        }
    }

    /// Whether a link of a document leads to a file or a folder.
    fn resolves(&self, from: &Path, target: &str) -> bool {
        let file = target.split('#').next().unwrap_or_default();
        if target.contains("://") || file.is_empty() {
            return true;
        }
        root().join(from).parent().is_some_and(|dir| dir.join(file).exists())
    }

    /// Whether a file is there whose path ends so, and has the symbol behind `#`.
    fn has_file(&self, name: &str) -> bool {
        let (file, symbol) = name.split_once('#').unwrap_or((name, ""));
        // `rpc/src/conn.rs` is a file of the crate, wherever its group lies.
        let mut found = self.files.iter().filter(|path| path.ends_with(file));
        found.any(|path| {
            let text = std::fs::read_to_string(root().join(path)).unwrap_or_default();
            symbol.is_empty() || text.contains(symbol)
        })
    }
}

fn is_comment(line: &str) -> bool {
    line.contains("//")
}

/// The words that follow each place where a line says `word`.
fn behind<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(word).map(move |(at, _)| {
        let rest = &line[at + word.len()..];
        rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
    })
}

/// A letter and a number.
fn is_behaviour(word: &str) -> bool {
    let mut chars = word.chars();
    let letter = chars.next().is_some_and(|c| c.is_ascii_uppercase());
    letter && !chars.as_str().is_empty() && chars.all(|c| c.is_ascii_digit())
}

fn behaviours(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.filter(|cell| is_behaviour(cell)).map(str::to_owned).collect()
}

fn invariants(page: &str) -> BTreeSet<String> {
    let list = page.lines().skip_while(|line| *line != "## Invariants").skip(1);
    let list = list.take_while(|line| !line.starts_with("## "));
    list.filter_map(|line| line.split_once(". ")).map(|(number, _)| number.to_owned()).collect()
}

fn section_numbers(page: &str) -> Vec<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## ")?.split_once(". "));
    headings.map(|(number, _)| number.to_owned()).collect()
}

/// `page.md section N`.
fn cited_sections(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.match_indices(".md section ").map(|(at, words)| {
        let begin = line[..at].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |b| b + 1);
        let number = line[at + words.len()..].split(|c: char| !c.is_ascii_alphanumeric()).next();
        (&line[begin..at + 3], number.unwrap_or_default())
    })
}

/// Targets of Markdown links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split(')').next())
}

/// Source files named in backticks: a path that ends with `.rs`, perhaps with `#symbol`.
fn named_files(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|name| {
        let file = name.split('#').next().unwrap_or_default();
        file.ends_with(".rs") && !file.contains([' ', '*', '…', '<', '{'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let known = Known {
            behaviours: behaviours("| D12 | a |\n| # | Statement |\n"),
            sections: [("disk.md".to_owned(), "3".to_owned())].into(),
            invariants: invariants("## Invariants\n\n1. a.\n12. b.\n\n## More\n\n3. c.\n"),
            files: vec!["xtask/src/tidy/citations.rs".into()],
        };
        let mut found = Vec::new();
        known.check(Path::new(path), text, &mut found);
        found
    }

    #[test]
    fn a_citation_of_what_is_not_there_is_found() {
        for (path, good, bad) in [
            ("a.rs", "// as in Go (semantics D12)", "// (semantics D13)"),
            ("a.rs", "//! Invariant 12: a limit", "//! Invariant 3: no limit"),
            ("a.rs", "// (disk.md section 3)", "// (disk.md section 4)"),
            ("a.rs", "let semantics = \"semantics D13\";", "let a = 1; // semantics Z1"),
            ("a.md", "[a](ARCHITECTURE.md)", "[a](GONE.md)"),
            ("a.md", "[a](https://etcd.io/x.md#y)", "[a](docs/gone.md#y)"),
            ("a.md", "`tidy/citations.rs`", "`member/src/node.rs`"),
            ("a.md", "`tidy/citations.rs#has_file`", "`tidy/citations.rs#has_\u{66}iles_not`"),
        ] {
            assert_eq!(findings(path, good), Vec::<String>::new(), "{good}");
            assert_eq!(findings(path, bad).len(), 1, "{bad}");
        }
    }
}
