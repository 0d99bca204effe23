//! `watch -i`: watches that lines of stdin ask for, all on one stream.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _};

use cli::{Exit, Values, output};
use client::{Leader, Told, WatchKey, Watches};
use tokio::sync::mpsc;

use super::{Goes, Named, Plan, request, tell};
use crate::commands;
use crate::session::Session;
use crate::words;

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Lines that were read and are not looked at yet.
const LINES_AHEAD: usize = 16;

/// A line of stdin, or why there is none.
type Line = Result<String, String>;

/// Runs the watches that stdin asks for, until it ends.
//= etcd 3.7.3: etcdctl/ctlv3/command/watch_command.go#watchInteractiveFunc
pub(super) async fn follow(session: &Session<'_>, named: &Named) -> Result<(), Exit> {
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    // It ends with stdin, or with the process.
    std::thread::spawn(move || read_lines(&sender));
    let mut watches = Watches::new(session.client(), Leader::Required);
    let mut programs = BTreeMap::new();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line.unwrap_or_else(|| Err("EOF".to_owned())),
            told = super::next(&mut watches) => {
                told_one(session, &mut programs, &told)?;
                continue;
            }
        };
        let line = line.map_err(|why| {
            Exit::new(Exit::INVALID_INPUT, format!("error reading watch request line: {why}"))
        })?;
        match asked(&line, named)? {
            Asked::Watch(plan) => {
                let key = watches.add(plan.request);
                programs.insert(key, plan.command);
            }
            Asked::Progress => watches.ask_for_progress(),
            Asked::Nothing(why) => output::err(why),
        }
    }
}

fn told_one(
    session: &Session<'_>,
    programs: &mut BTreeMap<WatchKey, Vec<String>>,
    told: &Told,
) -> Result<(), Exit> {
    let (Told::Response(key, _) | Told::Ended(key, _)) = told;
    let command = programs.get(key).map_or(&[][..], Vec::as_slice);
    if tell(session, command, told)? == Goes::Over {
        programs.remove(key);
    }
    Ok(())
}

fn read_lines(sender: &mpsc::Sender<Line>) {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = (&mut stdin).take(MAX_LINE).read_until(b'\n', &mut line);
        let line = match read {
            Err(error) => Err(osenv::error_text(&error)),
            // The end of stdin ends a line that is not whole, too.
            Ok(_) if line.pop() != Some(b'\n') => Err("EOF".to_owned()),
            Ok(_) => String::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()),
        };
        let is_over = line.is_err();
        if sender.blocking_send(line).is_err() || is_over {
            return;
        }
    }
}

/// What a line asks for.
enum Asked {
    Watch(Plan),
    Progress,
    /// Nothing that there is; why.
    Nothing(String),
}

fn asked(line: &str, named: &Named) -> Result<Asked, Exit> {
    let words = words::split(line)?;
    let Some((command, args)) = words.split_first() else {
        let why = format!("Invalid command: {line} (watch and progress supported)");
        return Ok(Asked::Nothing(why));
    };
    match command.as_str() {
        "watch" if args.is_empty() && named.key.is_none() => {
            let why = format!("Invalid command {line} (command type or key is not provided)");
            Ok(Asked::Nothing(why))
        }
        "watch" => plan(line, args, named),
        "progress" => Ok(Asked::Progress),
        _ => Ok(Asked::Nothing(format!("Invalid command {line} (only support watch)"))),
    }
}

fn plan(line: &str, args: &[String], named: &Named) -> Result<Asked, Exit> {
    if args.last().is_some_and(|last| last == "--") {
        let text = "bad number of arguments (found separator --, but no commands)";
        return Err(Exit::args(text));
    }
    let values = Values::read(commands::WATCH.to_vec(), args).map_err(Exit::args)?;
    let split = values.before_dashes.unwrap_or(values.args.len());
    let (given, command) = values.args.split_at(split);
    if values.before_dashes.is_none() && given.is_empty() && named.key.is_none() {
        return Err(Exit::args("bad number of arguments"));
    }
    if values.before_dashes.is_none() && !given.is_empty() && named.key.is_some() {
        let text = "bad number of arguments (found conflicting environment key)";
        return Err(Exit::args(text));
    }
    let keys: Vec<String> = named.keys().chain(given.iter().cloned()).collect();
    Ok(match request(&keys, &values) {
        Ok(request) => Asked::Watch(Plan { request, command: command.to_vec() }),
        Err(why) => Asked::Nothing(format!("Invalid command {line} ({why})")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: Option<&str>) -> Named {
        Named { key: key.map(str::to_owned), range_end: None }
    }

    fn refused(line: &str, key: Option<&str>) -> String {
        match asked(line, &named(key)) {
            Ok(Asked::Nothing(why)) => why,
            Ok(_) => panic!("{line} is taken"),
            Err(exit) => format!("{}: {}", exit.code, exit.text),
        }
    }

    #[test]
    fn lines_ask_for_watches_and_programs() {
        let Ok(Asked::Watch(plan)) = asked("watch 'a b' c --rev 3 -- echo x", &named(None)) else {
            panic!()
        };
        assert_eq!((plan.request.key, plan.request.range_end), ("a b".into(), "c".into()));
        assert_eq!((plan.request.start_revision, plan.command), (3, words(&["echo", "x"])));
        let Ok(Asked::Watch(plan)) = asked("watch", &named(Some("k"))) else { panic!() };
        assert_eq!(plan.request.key, "k");
        assert!(matches!(asked("progress", &named(None)), Ok(Asked::Progress)));
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn other_lines_are_refused_in_etcds_words() {
        assert_eq!(refused("", None), "Invalid command:  (watch and progress supported)");
        assert_eq!(refused("foo a", None), "Invalid command foo a (only support watch)");
        let few = "Invalid command watch (command type or key is not provided)";
        assert_eq!(refused("watch", None), few);
        assert_eq!(refused("watch --prefix", None), "128: bad number of arguments");
        assert_eq!(refused("watch --nope x", None), "128: unknown flag: --nope");
        let both = "Invalid command watch a b --prefix (`range_end` and `--prefix` are mutually \
                    exclusive)";
        assert_eq!(refused("watch a b --prefix", None), both);
        let separator = "128: bad number of arguments (found separator --, but no commands)";
        assert_eq!(refused("watch a --", None), separator);
        let conflict = "128: bad number of arguments (found conflicting environment key)";
        assert_eq!(refused("watch a", Some("k")), conflict);
    }
}
