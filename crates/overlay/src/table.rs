//! Pairs in order, to be compared with other pairs in one pass.

use std::cmp::Ordering;

/// What something is for each of many keys, sorted by them. It is written once and compared often, which a vector does several times as fast as a
/// tree or a hash table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<K, V>(Vec<(K, V)>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> From<Vec<(K, V)>> for Table<K, V> {
    /// Of several pairs with one key the last counts.
    fn from(mut pairs: Vec<(K, V)>) -> Self {
        if !pairs.is_sorted_by(|one, other| one.0 < other.0) {
            pairs.sort_by(|one, other| one.0.cmp(&other.0));
            pairs.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    std::mem::swap(&mut later.1, &mut earlier.1);
                }
                same
            });
        }
        Self(pairs)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        pairs.into_iter().collect::<Vec<_>>().into()
    }
}

impl<K: Ord, V> Table<K, V> {
    /// What it is for a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let found = self.0.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        self.0.get(found).map(|(_, value)| value)
    }

    /// Whether it is something for a key.
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in what another has. Where both have a key, the other's value counts.
    pub fn extend(&mut self, other: Self) {
        if other.is_empty() {
            return;
        }
        let mut pairs = std::mem::take(&mut self.0);
        // Two runs in order, which a stable sort merges in one pass.
        pairs.extend(other.0);
        *self = pairs.into();
    }

    /// Leaves out what `keep` does not say yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| keep(key, value));
    }

    /// Leaves out the keys of another.
    pub fn subtract<W>(&mut self, other: &Table<K, W>) {
        if !other.is_empty() {
            self.0.retain(|(key, _)| !other.contains(key));
        }
    }

    /// The values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// The same keys with other values.
    pub fn map<W>(self, mut each: impl FnMut(V) -> W) -> Table<K, W> {
        Table(self.0.into_iter().map(|(key, value)| (key, each(value))).collect())
    }

    /// Gives each key of the two, in order, with what it is in one and in the other.
    pub fn compare<'t, W>(
        &'t self,
        other: &'t Table<K, W>,
        mut each: impl FnMut(&'t K, Option<&'t V>, Option<&'t W>),
    ) {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some((one, _)), Some((another, _))) => one.cmp(another),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let one = if order.is_le() { ours.next() } else { None };
            let another = if order.is_ge() { theirs.next() } else { None };
            if let Some(key) = one.map(|(key, _)| key).or(another.map(|(key, _)| key)) {
                each(key, one.map(|(_, value)| value), another.map(|(_, value)| value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_counts() {
        let table: Table<u8, char> = [(2, 'a'), (1, 'b'), (2, 'c'), (2, 'd')].into_iter().collect();
        assert_eq!(table.iter().copied().collect::<Vec<_>>(), [(1, 'b'), (2, 'd')]);
        assert_eq!((table.get(&2), table.get(&3)), (Some(&'d'), None));
    }

    #[test]
    fn what_was_taken_in_can_be_left_out_again() {
        let before: Table<u8, char> = [(1, 'a'), (4, 'd')].into_iter().collect();
        let part: Table<u8, char> = [(0, 'z'), (2, 'b'), (9, 'y')].into_iter().collect();
        let mut table = before.clone();
        table.extend(part.clone());
        assert_eq!(table.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [0, 1, 2, 4, 9]);
        table.subtract(&part);
        assert_eq!(table, before);
    }

    #[test]
    fn a_comparison_meets_every_key_once() {
        let one: Table<u8, char> = [(1, 'a'), (3, 'b'), (4, 'c')].into_iter().collect();
        let other: Table<u8, u8> = [(2, 2), (3, 3), (9, 9)].into_iter().collect();
        let mut met = Vec::new();
        one.compare(&other, |key, one, other| met.push((*key, one.copied(), other.copied())));
        let expected = [
            (1, Some('a'), None),
            (2, None, Some(2)),
            (3, Some('b'), Some(3)),
            (4, Some('c'), None),
            (9, None, Some(9)),
        ];
        assert_eq!(met, expected);
    }
}
