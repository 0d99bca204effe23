//! One member as four automata: node, log writer, applier, committer.
