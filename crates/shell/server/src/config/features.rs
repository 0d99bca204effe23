//! Feature gates: `--feature-gates=Name=bool,…`.
//= etcd 3.7.1: server/features/etcd_features.go, pkg/featuregate/feature_gate.go

use cli::text::parse_bool;

/// A feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// `ALPHA` or `BETA`.
    pub stage: &'static str,
    default: bool,
    /// Whether it may be set to what is not its default.
    works: bool,
}

const fn gate(name: &'static str, stage: &'static str, default: bool, works: bool) -> Gate {
    Gate { name, stage, default, works }
}

/// All gates, by name.
pub const GATES: [Gate; 11] = [
    gate("AllAlpha", "ALPHA", false, false),
    gate("AllBeta", "BETA", false, true),
    gate("CompactHashCheck", "ALPHA", false, true),
    // How apply and keep-alives work inside is ours; the next and the last change nothing.
    gate("FastLeaseKeepAlive", "BETA", true, true),
    gate("InitialCorruptCheck", "ALPHA", false, true),
    gate("LeaseCheckpoint", "ALPHA", false, true),
    gate("LeaseCheckpointPersist", "ALPHA", false, true),
    gate("PriorityRequest", "ALPHA", false, false),
    gate("SetMemberLocalAddr", "ALPHA", false, true),
    gate("StopGRPCServiceOnDefrag", "ALPHA", false, false),
    gate("TxnModeWriteWithSharedBuffer", "BETA", true, true),
];

impl Gate {
    /// Whether it is open unless the flag says otherwise.
    #[must_use]
    pub fn is_open_by_default(&self) -> bool {
        self.default
    }
}

/// Which gates are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    open: [bool; GATES.len()],
    /// Which of them were given.
    given: [bool; GATES.len()],
}

impl Default for Features {
    fn default() -> Self {
        Self { open: GATES.map(|gate| gate.default), given: [false; GATES.len()] }
    }
}

impl Features {
    /// Reads the flag's text.
    ///
    /// # Errors
    /// etcd's texts.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut set: [Option<bool>; GATES.len()] = [None; GATES.len()];
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) =
                item.split_once('=').ok_or_else(|| format!("missing bool value for {item}"))?;
            let (name, value) = (name.trim(), value.trim());
            let open = parse_bool(value)
                .map_err(|e| format!("invalid value of {name}={value}, err: {e}"))?;
            let place = GATES.iter().position(|gate| gate.name == name);
            let place = place.ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
            set[place] = Some(open);
        }
        let all = |stage: &str| {
            let name = if stage == "ALPHA" { "AllAlpha" } else { "AllBeta" };
            GATES.iter().position(|gate| gate.name == name).and_then(|place| set[place])
        };
        let given = set.map(|gate| gate.is_some());
        let mut features = Self { given, ..Self::default() };
        for (place, gate) in GATES.iter().enumerate() {
            let open = set[place].or_else(|| all(gate.stage).filter(|_| !is_all(gate)));
            features.open[place] = open.unwrap_or(gate.default);
        }
        Ok(features)
    }

    /// Checks what contradicts itself.
    ///
    /// # Errors
    /// etcd's text.
    //= etcd 3.7.3: server/embed/config.go#Validate
    pub fn check(&self) -> Result<(), String> {
        if self.is_open("LeaseCheckpointPersist") && !self.is_open("LeaseCheckpoint") {
            let why = "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                       LeaseCheckpoint";
            return Err(why.to_owned());
        }
        Ok(())
    }

    /// The first gate that is not as by default and whose feature comes later, as the flag has it.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let mut gates = GATES.iter().zip(self.open);
        let (gate, open) = gates.find(|(gate, open)| *open != gate.default && !gate.works)?;
        Some(format!("{}={open}", gate.name))
    }

    /// The gates that were given, as the flag has them.
    #[must_use]
    pub fn text(&self) -> String {
        let gates = GATES.iter().zip(self.open).zip(self.given).filter(|(_, given)| *given);
        let texts: Vec<_> =
            gates.map(|((gate, open), _)| format!("{}={open}", gate.name)).collect();
        texts.join(",")
    }

    /// Whether a gate is open.
    ///
    /// # Panics
    /// If there is no gate of this name.
    #[must_use]
    pub fn is_open(&self, name: &str) -> bool {
        let place = GATES.iter().position(|gate| gate.name == name);
        self.open[place.expect("a gate of the table")]
    }

    /// Name, stage and state of every gate.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        GATES.iter().zip(self.open).map(|(gate, open)| (gate.name, gate.stage, open))
    }
}

fn is_all(gate: &Gate) -> bool {
    gate.name.starts_with("All")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_as_etcd_reads_them() {
        let features = Features::parse(" CompactHashCheck=true, ,LeaseCheckpoint = T").unwrap();
        assert!(features.is_open("CompactHashCheck") && features.is_open("LeaseCheckpoint"));
        assert!(features.is_open("FastLeaseKeepAlive"));
        assert!(!Features::parse("AllBeta=false").unwrap().is_open("FastLeaseKeepAlive"));
        assert_eq!(Features::parse(""), Ok(Features::default()));
        let refused = |text: &str| Features::parse(text).unwrap_err();
        assert_eq!(refused("A"), "missing bool value for A");
        assert_eq!(refused("Nope=true"), "unrecognized feature gate: Nope");
        assert!(refused("AllBeta=x").starts_with("invalid value of AllBeta=x, err: "));
        let persist = Features::parse("LeaseCheckpointPersist=true").unwrap();
        assert!(persist.check().unwrap_err().contains("requires enabling"));
        assert_eq!(persist.missing(), None);
        let all = Features::parse("AllAlpha=true").unwrap();
        assert_eq!(all.missing().unwrap(), "AllAlpha=true");
    }
}
