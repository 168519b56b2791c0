//! A map by name in which the unnamed one has a place of its own: most clients use no other, and it needs
//! no hash.

use std::collections::HashMap;

use crate::relay::names::Name;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct ByName<T> {
    unnamed: Option<T>,
    named: HashMap<Name, T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { unnamed: None, named: HashMap::new() }
    }
}

impl<T> ByName<T> {
    /// What has the name.
    pub fn get(&self, name: &str) -> Option<&T> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    /// The same to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        if name.is_empty() { self.unnamed.as_mut() } else { self.named.get_mut(name) }
    }

    /// Gives a name to something; what had it before is gone.
    pub fn insert(&mut self, name: Name, one: T) {
        if name.is_empty() {
            self.unnamed = Some(one);
        } else {
            self.named.insert(name, one);
        }
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &str) {
        if name.is_empty() {
            self.unnamed = None;
        } else {
            self.named.remove(name);
        }
    }

    /// Takes all names away.
    pub fn clear(&mut self) {
        self.unnamed = None;
        self.named.clear();
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.unnamed = self.unnamed.take().filter(&mut keep);
        if !self.named.is_empty() {
            self.named.retain(|_, one| keep(one));
        }
    }

    /// All of them, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.unnamed.iter_mut().chain(self.named.values_mut())
    }

    /// All of them that have a name.
    pub fn named(&self) -> impl Iterator<Item = (&str, &T)> {
        self.named.iter().map(|(name, one)| (&**name, one))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.named.len() + usize::from(self.unnamed.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unnamed_one_is_one_of_them() {
        let mut all = ByName::default();
        for (name, n) in [("", 1), ("a", 2), ("", 3)] {
            all.insert(name.into(), n);
        }
        assert_eq!((all.get(""), all.get("a"), all.get("b"), all.count()), (Some(&3), Some(&2), None, 2));
        all.values_mut().for_each(|n| *n += 10);
        all.retain(|n| *n != 12);
        assert_eq!((all.get(""), all.get("a"), all.count()), (Some(&13), None, 1));
        all.remove("");
        assert_eq!(all.count(), 0);
    }
}
