//! Comparing what is with what the model says.

use super::model::{Model, Nr};
use crate::filer::memory::Found;
use std::collections::BTreeMap;

/// A few differences tell enough.
const SAID_MAX: usize = 6;

fn text(path: &[u8]) -> String {
    if path.is_empty() { "/".into() } else { String::from_utf8_lossy(path).into_owned() }
}

/// How a filer's tree differs from the model's; `times` compares modification times as well.
#[must_use]
pub fn differences(model: &Model, found: &[Found], times: bool) -> Vec<String> {
    let mut said = Vec::new();
    let mut want: BTreeMap<Vec<u8>, Nr> = model.paths().into_iter().collect();
    let (mut number_of, mut nr_of) = (BTreeMap::new(), BTreeMap::new());
    for it in found {
        if said.len() >= SAID_MAX {
            break;
        }
        let path = text(&it.path);
        let Some(nr) = want.remove(&it.path) else {
            said.push(format!("{path} is there ({:?}) and should not be", it.stat.kind));
            continue;
        };
        let node = &model.nodes[nr];
        let number = *number_of.entry(nr).or_insert(it.number);
        let back = *nr_of.entry(it.number).or_insert(nr);
        if (number, back) != (it.number, nr) {
            said.push(format!("{path} is not the same object as by its other names, or is another one's"));
        }
        let (is, should) = (it.stat.kind, node.kind);
        if is != should {
            said.push(format!("{path} is {is:?}, not {should:?}"));
            continue;
        }
        if !node.may_have(it.stat.mode, (it.stat.uid, it.stat.gid)) {
            let (is, should) = ((it.stat.mode, it.stat.uid, it.stat.gid), (node.mode, node.uid, node.gid));
            said.push(format!("{path} ({:?}) has mode, uid, gid {is:?}, not {should:?}", node.id));
        }
        if it.target != node.target {
            said.push(format!("{path} leads elsewhere"));
        }
        if it.stat.rdev != node.rdev {
            said.push(format!("{path} is another device"));
        }
        if !node.may_be(&it.bytes) {
            said.push(format!("{path} ({:?}): {}", node.id, bytes(&it.bytes, &node.content)));
        }
        if times && it.stat.mtime != node.mtime {
            said.push(format!("{path} ({:?}) has mtime {:?}, not {:?}", node.id, it.stat.mtime, node.mtime));
        }
    }
    for (path, nr) in want {
        if said.len() >= SAID_MAX {
            break;
        }
        let node = &model.nodes[nr];
        said.push(format!("{} ({:?}, {:?}) is missing", text(&path), node.kind, node.id));
    }
    said
}

/// What differs between two sides that the model holds both for right (see [`Node::unsure`](super::model::Node)).
#[must_use]
pub fn apart(one: &[Found], other: &[Found]) -> Option<String> {
    let others: BTreeMap<_, _> = other.iter().map(|it| (&it.path, it)).collect();
    one.iter().find_map(|it| {
        let other = others.get(&it.path)?;
        let attrs = |it: &Found| (it.stat.mode, it.stat.uid, it.stat.gid);
        if attrs(it) != attrs(other) {
            return Some(format!("{}: {:?}, not {:?}", text(&it.path), attrs(it), attrs(other)));
        }
        if it.xattrs != other.xattrs {
            return Some(format!("{}: extended attributes {:?}, not {:?}", text(&it.path), it.xattrs, other.xattrs));
        }
        if it.data != other.data {
            return Some(format!("{}: data at {:?}, not {:?}", text(&it.path), it.data, other.data));
        }
        (it.bytes != other.bytes).then(|| format!("{}: {}", text(&it.path), bytes(&it.bytes, &other.bytes)))
    })
}

fn bytes(is: &[u8], should: &[u8]) -> String {
    if is.len() != should.len() {
        return format!("{} bytes, not {}", is.len(), should.len());
    }
    let at = is.iter().zip(should).position(|(a, b)| a != b).unwrap_or(0);
    let part = |all: &[u8]| format!("{:02x?}", &all[at..all.len().min(at + 8)]);
    format!("bytes differ at {at}: {}, not {}", part(is), part(should))
}
