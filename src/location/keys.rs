//! Names of one node. Most nodes have one or two, there may be very many nodes, and one of them may have very many.

use super::round::{Key, push};
use std::collections::BTreeSet;

/// So many are looked through one by one.
const FEW: usize = 8;

/// A set of names: in the order in which they came, as long as they are few, then in their own.
#[derive(Debug, PartialEq, Eq)]
pub enum Keys {
    Few(Vec<Key>),
    Many(BTreeSet<Key>),
}

impl Default for Keys {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Keys {
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Few(keys) => keys.contains(key),
            Self::Many(keys) => keys.contains(key),
        }
    }

    pub fn insert(&mut self, key: Key) {
        match self {
            Self::Few(keys) if keys.contains(&key) => {}
            Self::Few(keys) if keys.len() < FEW => push(keys, key),
            Self::Few(keys) => *self = Self::Many(keys.drain(..).chain([key]).collect()),
            Self::Many(keys) => drop(keys.insert(key)),
        }
    }

    pub fn remove(&mut self, key: &Key) {
        match self {
            Self::Few(keys) => keys.retain(|held| held != key),
            Self::Many(keys) => drop(keys.remove(key)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        let (few, many) = match self {
            Self::Few(keys) => (Some(keys), None),
            Self::Many(keys) => (None, Some(keys)),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::ids::NodeId;

    #[test]
    fn it_is_the_same_set_with_few_and_with_many() {
        let (mut keys, mut all) = (Keys::default(), BTreeSet::new());
        for n in (0..40u64).chain(10..30) {
            let key = (NodeId(n * 7 % 40), vec![b'a'; 3]);
            if n % 3 == 2 {
                keys.remove(&key);
                all.remove(&key);
            } else {
                keys.insert(key.clone());
                keys.insert(key.clone());
                all.insert(key.clone());
            }
            assert_eq!(keys.iter().cloned().collect::<BTreeSet<_>>(), all);
            assert_eq!((keys.iter().count(), keys.contains(&key)), (all.len(), all.contains(&key)));
        }
        assert!(all.len() > FEW && matches!(keys, Keys::Many(_)));
    }
}
