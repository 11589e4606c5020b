//! Texts that end a generation.

/// Lets text through up to the first stop text, and holds back what may be the beginning of one.
pub struct StopGate {
    stops: Vec<String>,
    /// What came and was not handed out yet: first what may be, then what is held back.
    held: String,
    /// Bytes that may be handed out.
    n_sure: usize,
    /// The stop text that came.
    found: Option<usize>,
}

impl StopGate {
    /// For these texts, of which empty ones count for nothing.
    pub fn new(stops: &[String]) -> StopGate {
        let stops: Vec<String> = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        // What is held back and the next piece: room from the start, so that a token allocates
        // nothing.
        let room = stops.iter().map(String::len).max().unwrap_or(0) + 256;
        StopGate { stops, held: String::with_capacity(room), n_sure: 0, found: None }
    }

    /// Whether a stop text came: nothing that comes later may be handed out.
    pub fn is_closed(&self) -> bool {
        self.found.is_some()
    }

    /// The stop text that came: of several the one that begins first.
    pub fn stop(&self) -> Option<&str> {
        self.found.map(|i| self.stops[i].as_str())
    }

    /// What may be handed out.
    pub fn sure(&self) -> &str {
        &self.held[..self.n_sure]
    }

    /// What may be handed out was.
    pub fn clear(&mut self) {
        self.held.drain(..self.n_sure);
        self.n_sure = 0;
    }

    /// More text.
    pub fn push(&mut self, text: &str) {
        self.held.push_str(text);
        // What is sure already is part of no stop text.
        let held = &self.held[self.n_sure..];
        let found = self.stops.iter().enumerate().filter_map(|(i, stop)| Some((held.find(stop.as_str())?, i)));
        match found.min() {
            Some((at, i)) => {
                self.found = Some(i);
                self.n_sure += at;
            }
            None => self.n_sure = self.held.len() - self.n_held_back(held),
        }
    }

    /// Bytes at the end of `held` that a stop text may begin with.
    fn n_held_back(&self, held: &str) -> usize {
        let longest = |stop: &String| {
            let starts = stop.char_indices().map(|(i, _)| i).skip(1);
            starts.filter(|&n| held.ends_with(&stop[..n])).max().unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }

    /// The text has ended with this: what was held back is text.
    pub fn finish(&mut self, rest: &str) {
        self.push(rest);
        if !self.is_closed() {
            self.n_sure = self.held.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut gate = StopGate::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            if !gate.is_closed() {
                gate.push(piece);
                out.push_str(gate.sure());
                gate.clear();
            }
        }
        if !gate.is_closed() {
            gate.finish("");
            out.push_str(gate.sure());
        }
        (out, gate.is_closed())
    }

    #[test]
    fn stop_texts_end_generation_wherever_pieces_are_cut() {
        let cases: [(&[&str], &[&str], &str, bool); 7] = [
            (&[], &["a", "b"], "ab", false),
            (&["<|user|>"], &["Hi <", "|us", "er|> more"], "Hi ", true),
            (&["<|user|>"], &["Hi <", "|us", "ed"], "Hi <|used", false),
            (&["END", "###"], &["a ##", "#", "END"], "a ", true),
            (&["é!"], &["caf", "é", "?"], "café?", false),
            (&["aab"], &["aa", "ab", "c"], "a", true),
            (&["", "b"], &["a", "", "b"], "a", true),
        ];
        for (stops, pieces, text, closed) in cases {
            assert_eq!(through(stops, pieces), (text.to_owned(), closed), "{stops:?} {pieces:?}");
        }
    }

    #[test]
    fn the_stop_text_that_begins_first_is_told() {
        for (pieces, stop) in [(&["x END b"][..], Some("END")), (&["x b END"], Some("b")), (&["x", "y"], None)] {
            let mut gate = StopGate::new(&["".into(), "END".into(), "b".into()]);
            pieces.iter().for_each(|piece| gate.push(piece));
            assert_eq!((gate.stop(), gate.is_closed()), (stop, stop.is_some()), "{pieces:?}");
        }
    }
}
