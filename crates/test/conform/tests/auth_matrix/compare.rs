//! Two servers asked the same: what differs, and what the naive model says otherwise.

use std::fmt::Write as _;

use api::method::Method;
use conform::Kind;

use crate::cell::{Cell, Needs, Outcome};
use crate::identity::{Identity, Standing};
use crate::model::permits;
use crate::world::World;

/// Whether the model's word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Authentication is on, and nothing but it refuses.
    On,
    /// As on, with tokens that carry name and revision: where etcd asks for no more than a token,
    /// those of users who are gone are still good.
    Signed,
    /// Authentication is off: nobody is refused.
    Off,
    /// There is no leader: who waits, waits in vain, for however long.
    Leaderless,
    /// The condition decides first: the servers are compared with each other alone.
    Silent,
}

/// A subject and etcd, in one condition.
pub struct Sides {
    pub condition: &'static str,
    pub subject: Kind,
    pub left: World,
    pub right: World,
    pub model: Model,
}

/// Services that this product does not have yet: each call of them is refused as unknown.
pub fn is_later(method: Method) -> bool {
    ["v3lockpb.Lock", "v3electionpb.Election"].contains(&method.row().service)
}

const UNIMPLEMENTED: u16 = 12;

/// What was found.
#[derive(Default)]
pub struct Findings {
    pub cells: usize,
    pub refused: usize,
    pub lines: Vec<String>,
}

impl Findings {
    /// Fails if anything was found. All lines go into the file that `QUORATE_AUTH_DIFFERS` names.
    pub fn conclude(self, condition: &str) {
        eprintln!("{condition}: {} cells, {} of them refused", self.cells, self.refused);
        if let Some(path) = std::env::var_os("QUORATE_AUTH_DIFFERS") {
            use std::io::Write as _;
            let file = std::fs::File::options().append(true).create(true).open(path);
            let text = self.lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the file is ours");
        }
        let shown = self.lines.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.lines.is_empty(), "{} findings:\n{shown}", self.lines.len());
        assert!(self.cells > 0);
    }
}

impl Sides {
    /// Asks both sides for everything, one after another on each; what changes authentication
    /// itself comes last.
    pub async fn ask(&self, cells: &[Cell]) -> Findings {
        let is_last =
            |cell: &&Cell| matches!(cell.method, Method::AuthEnable | Method::AuthDisable);
        let first = cells.iter().filter(|cell| !is_last(cell));
        let ordered: Vec<&Cell> = first.chain(cells.iter().filter(is_last)).collect();
        let play = async |world: &World| {
            let mut outcomes = Vec::with_capacity(ordered.len());
            for cell in &ordered {
                outcomes.push(world.ask_all(cell).await);
            }
            outcomes
        };
        let (left, right) = tokio::join!(play(&self.left), play(&self.right));
        let mut findings = Findings::default();
        for ((cell, left), right) in ordered.iter().zip(left).zip(right) {
            for ((identity, left), right) in self.left.identities().iter().zip(left).zip(right) {
                self.judge(&mut findings, cell, identity, &left, &right);
            }
        }
        findings
    }

    /// As [`Sides::ask`], all at once: for conditions in which nothing changes and much waits.
    pub async fn ask_at_once(&self, cells: &[Cell]) -> Findings {
        let play = async |world: &World| {
            let pairs = cells
                .iter()
                .flat_map(|cell| (0..world.identities().len()).map(move |place| (cell, place)));
            let numbered = pairs.enumerate().map(|(number, (cell, place))| async move {
                (number, world.ask(cell, place).await)
            });
            let mut outcomes = conform::join_all(numbered).await;
            outcomes.sort_by_key(|(number, _)| *number);
            outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
        };
        let (left, right) = tokio::join!(play(&self.left), play(&self.right));
        let mut findings = Findings::default();
        let pairs =
            cells.iter().flat_map(|cell| self.left.identities().iter().map(move |who| (cell, who)));
        for ((cell, identity), (left, right)) in pairs.zip(left.iter().zip(&right)) {
            self.judge(&mut findings, cell, identity, left, right);
        }
        findings
    }

    fn judge(
        &self,
        findings: &mut Findings,
        cell: &Cell,
        identity: &Identity,
        left: &Outcome,
        right: &Outcome,
    ) {
        findings.cells += 1;
        findings.refused += usize::from(right.is_refused());
        let mut line =
            format!("{}: {:?} [{}] by {}:", self.condition, cell.method, cell.name, identity.name);
        let head = line.len();
        if is_later(cell.method) && self.subject == Kind::Quorate && left != right {
            if left.code != UNIMPLEMENTED {
                let _ = write!(line, " it is there now; compare it: {left:?}");
            }
        } else if left != right && !self.is_in_vain(left, right) {
            let shown = |o: &Outcome| match o.code {
                0 => format!("good {}", o.answer),
                code => format!("{code} {:?}", o.text),
            };
            let _ = write!(line, " etcd: {} | ours: {}", shown(right), shown(left));
        }
        if let Some(expected) = self.expected(cell, identity)
            && !is_later(cell.method)
        {
            for (side, outcome) in [("ours", left), ("etcd", right)] {
                if outcome.is_refused() == expected {
                    let word = if expected { "let in" } else { "refused" };
                    let _ = write!(line, " {side} should be {word}, is {outcome:?}");
                }
            }
        }
        if line.len() > head {
            findings.lines.push(line);
        }
    }

    fn is_in_vain(&self, left: &Outcome, right: &Outcome) -> bool {
        self.model == Model::Leaderless && left.is_in_vain() && right.is_in_vain()
    }

    /// Whether a naive reading lets the caller in; `None` where it cannot tell.
    fn expected(&self, cell: &Cell, identity: &Identity) -> Option<bool> {
        // What ends authentication is followed by callers whom nobody asks.
        let is_told = !matches!(cell.needs, Needs::Untold) && cell.method != Method::AuthDisable;
        match (self.model, is_told) {
            (Model::Silent | Model::Leaderless, _) | (_, false) => return None,
            (Model::Off, _) => return Some(true),
            (Model::On | Model::Signed, _) => {}
        }
        let grants = match &identity.standing {
            Standing::Ended(_) if self.model == Model::Signed => return None,
            Standing::Root => return Some(true),
            Standing::User(grants) => grants,
            _ => return Some(false),
        };
        Some(match &cell.needs {
            Needs::Keys(needs) => needs.iter().all(|&(need, span)| permits(grants, need, span)),
            Needs::User => true,
            Needs::Root | Needs::Untold => false,
        })
    }
}
