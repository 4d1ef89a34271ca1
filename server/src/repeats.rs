//! What a request names again and again.

use std::hash::Hash;

use hashbrown::HashSet;

/// Those of a request's items whose name did not come before. What is asked for again and again is answered once, so that no
/// answer is larger than all there is to tell.
pub(crate) fn distinct<'a, T, K: Hash + Eq>(
    items: &'a [T],
    name: impl Fn(&'a T) -> K,
) -> impl Iterator<Item = &'a T> {
    let mut seen = HashSet::new();
    items.iter().filter(move |item| seen.insert(name(item)))
}

/// Those of `names` that occur more than once.
pub(crate) fn repeated<K: Hash + Eq + Copy>(names: impl Iterator<Item = K>) -> HashSet<K> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}
