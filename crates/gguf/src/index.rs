//! Finds an entry of a table by its name in a binary search: four bytes an entry, no copy of the
//! names.

/// Numbers of a table's entries, sorted by their names.
#[derive(Debug)]
pub(crate) struct NameIndex(Vec<u32>);

impl NameIndex {
    /// Sorts `n` entries by `name`. `Err` holds an entry whose name another one has too.
    ///
    /// The caller has read `n` entries of several bytes each, and keeps `n` within `u32`.
    pub(crate) fn new<'a>(n: usize, name: impl Fn(usize) -> &'a str) -> Result<NameIndex, usize> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_unstable_by_key(|&i| name(i as usize));
        match order.windows(2).find(|w| name(w[0] as usize) == name(w[1] as usize)) {
            Some(w) => Err(w[0].max(w[1]) as usize),
            None => Ok(NameIndex(order)),
        }
    }

    /// The entry with the name `wanted`.
    pub(crate) fn find<'a>(&self, wanted: &str, name: impl Fn(usize) -> &'a str) -> Option<usize> {
        let at = self.0.binary_search_by_key(&wanted, |&i| name(i as usize)).ok()?;
        Some(self.0[at] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_name_and_the_second_of_two_equal_ones() {
        let names = ["b", "", "ab", "a", "\u{10ffff}"];
        let index = NameIndex::new(names.len(), |i| names[i]).unwrap();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(index.find(name, |i| names[i]), Some(i), "{name}");
        }
        assert_eq!(index.find("c", |i| names[i]), None);
        assert_eq!(NameIndex::new(3, |i| ["x", "y", "x"][i]).unwrap_err(), 2);
        assert_eq!(NameIndex::new(0, |i| names[i]).unwrap().find("x", |i| names[i]), None);
    }
}
