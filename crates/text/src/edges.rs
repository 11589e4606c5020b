//! Whether text beside a text could make a control token of its end or its beginning.

/// The texts of control tokens, in two orders.
pub(crate) struct Edges {
    /// By their bytes.
    forward: Vec<Vec<u8>>,
    /// Each backwards, by these bytes.
    backward: Vec<Vec<u8>>,
    longest: usize,
}

impl Edges {
    pub(crate) fn new<'v>(tokens: impl Iterator<Item = &'v [u8]>) -> Edges {
        let mut forward: Vec<Vec<u8>> = tokens.map(<[u8]>::to_vec).collect();
        let mut backward: Vec<Vec<u8>> = forward.iter().map(|token| reversed(token)).collect();
        forward.sort_unstable();
        backward.sort_unstable();
        let longest = forward.iter().map(Vec::len).max().unwrap_or(0);
        Edges { forward, backward, longest }
    }

    /// Whether `text` ends as a token begins.
    pub(crate) fn can_begin_with(&self, text: &[u8]) -> bool {
        (1..self.longest.min(text.len() + 1)).any(|n| is_begun(&self.forward, &text[text.len() - n..]))
    }

    /// Whether `text` begins as a token ends.
    pub(crate) fn can_end_with(&self, text: &[u8]) -> bool {
        (1..self.longest.min(text.len() + 1)).any(|n| is_begun(&self.backward, &reversed(&text[..n])))
    }
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// Whether one of the texts, which are in order, begins with `part` and goes on.
fn is_begun(texts: &[Vec<u8>], part: &[u8]) -> bool {
    let at = texts.partition_point(|text| text.as_slice() < part);
    texts[at..].iter().take_while(|text| text.starts_with(part)).any(|text| text.len() > part.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_those_of_any_token() {
        let tokens: [&[u8]; 4] = [b"<|im_end|>", b"<s>", b"<s", b"x"];
        let edges = Edges::new(tokens.into_iter());
        let rows: [(&str, bool, bool); 9] = [
            ("", false, false),
            ("a<", false, true),
            ("a<|im_e", false, true),
            ("a<s", false, true),
            ("a<s>", false, false),
            (">b", true, false),
            ("_end|>b", true, false),
            ("s", true, false),
            ("x", false, false),
        ];
        for (text, begins, ends) in rows {
            let seen = (edges.can_end_with(text.as_bytes()), edges.can_begin_with(text.as_bytes()));
            assert_eq!(seen, (begins, ends), "{text:?}");
        }
        assert!(!Edges::new(std::iter::empty()).can_begin_with(b"<"));
    }
}
