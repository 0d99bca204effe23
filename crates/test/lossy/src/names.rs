//! Names of files: as they are now, and the changes that are not yet durable.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::inode::Inode;

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Node {
    Dir,
    File(Arc<Mutex<Inode>>),
}

#[derive(Debug)]
enum Change {
    /// A new file: its durable image waits in limbo under this path.
    Link {
        path: PathBuf,
        limbo: PathBuf,
    },
    MakeDir(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        let within = |p: &Path| p.parent() == Some(dir);
        match self {
            Change::Link { path, .. } | Change::MakeDir(path) | Change::Remove(path) => {
                within(path)
            }
            Change::Rename(a, b) => within(a) || within(b),
        }
    }

    fn make_durable(&self) -> std::io::Result<()> {
        match self {
            Change::Link { path, limbo } => std::fs::rename(limbo, path),
            Change::MakeDir(path) => std::fs::DirBuilder::new().mode(0o700).create(path),
            Change::Remove(path) if path.is_dir() => std::fs::remove_dir_all(path),
            Change::Remove(path) => std::fs::remove_file(path),
            Change::Rename(from, to) => std::fs::rename(from, to),
        }
    }
}

/// The names below one directory.
#[derive(Debug)]
pub struct Names {
    root: PathBuf,
    limbo: PathBuf,
    created: u64,
    names: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
}

impl Names {
    /// What the real directory holds, which is what survived. `limbo` is emptied: what is there
    /// never got a durable name.
    pub fn load(root: &Path, limbo: &Path) -> std::io::Result<Self> {
        if limbo.exists() {
            std::fs::remove_dir_all(limbo)?;
        }
        std::fs::create_dir(limbo)?;
        let mut all = Self {
            root: root.to_path_buf(),
            limbo: limbo.to_path_buf(),
            created: 0,
            names: BTreeMap::new(),
            pending: Vec::new(),
        };
        if root.exists() {
            all.walk(root)?;
        }
        Ok(all)
    }

    fn walk(&mut self, dir: &Path) -> std::io::Result<()> {
        self.names.insert(dir.to_path_buf(), Node::Dir);
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                self.walk(&path)?;
            } else {
                let file = std::fs::File::options().read(true).write(true).open(&path)?;
                self.names.insert(path, Node::File(Arc::new(Mutex::new(Inode::new(file)?))));
            }
        }
        Ok(())
    }

    /// Every directory above the root is there.
    pub fn get(&self, path: &Path) -> Option<Node> {
        if path != self.root && self.root.starts_with(path) {
            return Some(Node::Dir);
        }
        self.names.get(path).cloned()
    }

    pub fn children(&self, dir: &Path) -> Vec<(PathBuf, Node)> {
        let within = |p: &Path| p.parent() == Some(dir);
        self.names.iter().filter(|(p, _)| within(p)).map(|(p, n)| (p.clone(), n.clone())).collect()
    }

    /// Every file.
    pub fn files(&self) -> Vec<Arc<Mutex<Inode>>> {
        let file = |node: &Node| match node {
            Node::File(inode) => Some(Arc::clone(inode)),
            Node::Dir => None,
        };
        self.names.values().filter_map(file).collect()
    }

    pub fn create(&mut self, path: &Path, mode: u32) -> std::io::Result<Arc<Mutex<Inode>>> {
        assert!(path.starts_with(&self.root), "{} is outside the disk", path.display());
        self.created += 1;
        let limbo = self.limbo.join(self.created.to_string());
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(mode).open(&limbo)?;
        let inode = Arc::new(Mutex::new(Inode::new(file)?));
        self.names.insert(path.to_path_buf(), Node::File(Arc::clone(&inode)));
        self.pending.push(Change::Link { path: path.to_path_buf(), limbo });
        Ok(inode)
    }

    pub fn make_dir(&mut self, path: &Path) {
        self.names.insert(path.to_path_buf(), Node::Dir);
        self.pending.push(Change::MakeDir(path.to_path_buf()));
    }

    pub fn remove(&mut self, path: &Path) {
        self.names.retain(|name, _| !name.starts_with(path));
        self.pending.push(Change::Remove(path.to_path_buf()));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        let old = std::mem::take(&mut self.names);
        for (name, node) in &old {
            if !name.starts_with(from) && !name.starts_with(to) {
                self.names.insert(name.clone(), node.clone());
            }
        }
        for (name, node) in old {
            if let Ok(rest) = name.strip_prefix(from) {
                let empty = rest.as_os_str().is_empty();
                self.names.insert(if empty { to.to_path_buf() } else { to.join(rest) }, node);
            }
        }
        self.pending.push(Change::Rename(from.to_path_buf(), to.to_path_buf()));
    }

    /// Makes the names in `dir` durable, and with them, in order, every change before.
    pub fn sync(&mut self, dir: &Path) -> std::io::Result<()> {
        let last = self.pending.iter().rposition(|change| change.touches(dir));
        self.write_back(last.map_or(0, |last| last + 1))
    }

    /// Makes the first `count` changes durable, as a journal may at any time.
    pub fn write_back(&mut self, count: usize) -> std::io::Result<()> {
        let count = count.min(self.pending.len());
        self.pending.drain(..count).try_for_each(|change| change.make_durable())
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}
