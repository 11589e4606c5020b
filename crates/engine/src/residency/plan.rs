//! What of a model stays in memory: decided from sizes and what the machine allows, before a byte
//! is read.
//!
//! Reading a model larger than memory in a circle, as tokens do, through a cache that forgets what
//! was used longest ago misses every time. The best that can be done is to keep a fixed part P of
//! the M bytes and to read the rest for every token: a token then takes max(M / memory bandwidth,
//! (M - P) / disk bandwidth).

use std::fmt;

use modelembed_storage::process::MemoryLeft;

/// How much memory a model may use: its resident weights, KV cache and working memory together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RamBudget {
    /// What the machine and the control groups of this process leave, less a margin.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(u64),
    /// No plan: the system's pager decides what stays.
    Off,
}

/// What a plan depends on.
#[derive(Clone, Debug, Default)]
pub struct PlanInput {
    /// Bytes of weights that are used together and in this order: both halves of each block, then
    /// the output head.
    pub unit_bytes: Vec<u64>,
    /// How many of a unit's bytes can be streamed.
    pub streamable_bytes: Vec<u64>,
    /// Keys and values of a full context.
    pub kv_bytes: u64,
    /// Working memory of the widest chunk.
    pub scratch_bytes: u64,
    /// What the user said.
    pub budget: RamBudget,
    /// Bytes that the machine and the control groups leave.
    pub left: MemoryLeft,
    /// Units that are in memory at once while streaming.
    pub n_windows: usize,
    /// Bytes a second of the processor reading memory, where measured.
    pub memory_bytes_per_second: Option<f64>,
}

/// Whether a model fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it stays in memory.
    Fits,
    /// A part is read for every token.
    Streams,
    /// Too little memory even to stream.
    Impossible,
    /// Memory size is unknown, or planning is off.
    Unplanned,
}

/// What stays in memory and what does not.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The result.
    pub verdict: Verdict,
    /// Bytes of weights that a token reads: M.
    pub weight_bytes: u64,
    /// Bytes that may be used; 0 where unplanned.
    pub budget_bytes: u64,
    /// Bytes of KV cache, working memory and reserve.
    pub other_bytes: u64,
    /// Of each unit the bytes to be streamed; empty unless the verdict is to stream.
    pub streamed_bytes: Vec<u64>,
    /// Bytes of the windows.
    pub window_bytes: u64,
    /// Bytes a second of direct reads, once measured.
    pub disk_bytes_per_second: Option<f64>,
    /// As in the input.
    pub memory_bytes_per_second: Option<f64>,
}

/// Memory that the process itself needs beyond what is counted: code, page tables, threads' stacks.
const PROCESS_BYTES: u64 = 8 << 20;

impl Plan {
    /// Decides.
    pub fn new(input: &PlanInput) -> Plan {
        let weight_bytes: u64 = input.unit_bytes.iter().sum();
        let mut plan = Plan {
            verdict: Verdict::Unplanned,
            weight_bytes,
            budget_bytes: 0,
            other_bytes: input.kv_bytes.saturating_add(input.scratch_bytes).saturating_add(PROCESS_BYTES),
            streamed_bytes: Vec::new(),
            window_bytes: 0,
            disk_bytes_per_second: None,
            memory_bytes_per_second: input.memory_bytes_per_second,
        };
        plan.budget_bytes = match (input.budget, automatic(input.left)) {
            (RamBudget::Off, _) | (RamBudget::Auto, None) => return plan,
            (RamBudget::Bytes(bytes), _) | (RamBudget::Auto, Some(bytes)) => bytes,
        };
        let for_weights = plan.budget_bytes.saturating_sub(plan.other_bytes);
        if weight_bytes <= for_weights {
            plan.verdict = Verdict::Fits;
            return plan;
        }
        match least_streamed(input, for_weights) {
            Some(streamed) => {
                plan.verdict = Verdict::Streams;
                plan.window_bytes = streamed.iter().max().copied().unwrap_or(0) * input.n_windows as u64;
                plan.streamed_bytes = streamed;
            }
            None => plan.verdict = Verdict::Impossible,
        }
        plan
    }

    /// Bytes that are read for every token.
    pub fn streamed_per_token(&self) -> u64 {
        self.streamed_bytes.iter().sum()
    }

    /// Bytes of weights that stay: P.
    pub fn resident_bytes(&self) -> u64 {
        self.weight_bytes - self.streamed_per_token()
    }

    /// 1 / max(M / memory bandwidth, (M - P) / disk bandwidth), as far as the two are known.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = |bytes: u64, speed: Option<f64>| speed.filter(|s| *s > 0.0).map(|speed| bytes as f64 / speed);
        let memory = seconds(self.weight_bytes, self.memory_bytes_per_second);
        let disk = match self.streamed_per_token() {
            0 => None,
            bytes => Some(seconds(bytes, self.disk_bytes_per_second)?),
        };
        let slowest = memory.into_iter().chain(disk).fold(0.0, f64::max);
        (slowest > 0.0).then(|| 1.0 / slowest)
    }
}

/// The plan in one line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / f64::from(1 << 20));
        let (weights, budget, others) = (mb(self.weight_bytes), mb(self.budget_bytes), mb(self.other_bytes));
        match self.verdict {
            Verdict::Unplanned => write!(f, "none: the system decides what of {weights} of weights stays in memory"),
            Verdict::Fits => write!(f, "fits: {weights} of weights and {others} beside them in {budget} of memory"),
            Verdict::Impossible => write!(
                f,
                "impossible: {budget} of memory hold {others} of KV cache and working memory and no windows to stream {weights} of \
                 weights through; a smaller context needs less"
            ),
            Verdict::Streams => {
                let streamed = self.streamed_per_token();
                write!(f, "streams {} a token", mb(streamed))?;
                if let Some(speed) = self.tokens_per_second() {
                    write!(f, ", about {speed:.1} tokens/s")?;
                }
                write!(f, ": {weights} of weights and {others} beside them exceed {budget} of memory")?;
                if let Some(disk) = self.disk_bytes_per_second {
                    write!(f, "; the disk reads {:.0} MB/s", disk / f64::from(1 << 20))?;
                }
                Ok(())
            }
        }
    }
}

/// What may be used of what is left. Of the machine's memory some is for other programs; of a
/// control group's, where others' use is counted already, for the kernel's on behalf of this one
/// (page tables, 2 bytes a thousand). Using too much costs pages of the model, which are read
/// again, before it costs the process.
fn automatic(left: MemoryLeft) -> Option<u64> {
    let machine = left.machine_bytes.map(|left| left.saturating_sub((16 << 20) + left / 50));
    let groups = left.groups_bytes.map(|left| left.saturating_sub((4 << 20) + left / 100));
    machine.into_iter().chain(groups).min()
}

/// Streams as little as lets the rest and the windows fit into `for_weights` bytes: of each unit
/// the same number of bytes, or the same share of the smaller ones. `None` if streaming everything
/// takes more.
fn least_streamed(input: &PlanInput, for_weights: u64) -> Option<Vec<u64>> {
    const PAGE: u64 = 4096;
    let total: u64 = input.unit_bytes.iter().sum();
    let most = input.streamable_bytes.iter().max().copied().unwrap_or(0);
    // The largest window decides about the windows' memory; no unit needs to stream less than it
    // allows. Typical units are halves of blocks, small and large in turn, which the output head
    // must not make wider windows for.
    let streamed =
        |window: u64| -> Vec<u64> { input.streamable_bytes.iter().map(|&n| n.min(window) / PAGE * PAGE).collect() };
    let needed = |window: u64| -> u64 {
        let parts = streamed(window);
        let widest = parts.iter().max().copied().unwrap_or(0);
        total - parts.iter().sum::<u64>() + widest * input.n_windows as u64
    };
    // What is needed falls with the window as long as more units than windows still give bytes to
    // it.
    let mut widths: Vec<u64> = input.streamable_bytes.clone();
    widths.sort_unstable();
    let best = widths.len().checked_sub(input.n_windows + 1).map(|i| widths[i])?.min(most);
    if needed(best) > for_weights {
        return None;
    }
    let (mut low, mut high) = (0, best.div_ceil(PAGE));
    while low < high {
        let middle = low.midpoint(high);
        if needed(middle * PAGE) <= for_weights { high = middle } else { low = middle + 1 }
    }
    Some(streamed(high * PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    /// A model of 22 blocks of 25 MB and a head of 50 MB on a machine that leaves `available`.
    fn machine(available: Option<u64>, budget: RamBudget) -> PlanInput {
        let mut unit_bytes = vec![25 * MB; 22];
        unit_bytes.push(50 * MB);
        PlanInput {
            streamable_bytes: unit_bytes.clone(),
            unit_bytes,
            kv_bytes: 40 * MB,
            scratch_bytes: 20 * MB,
            budget,
            left: MemoryLeft { machine_bytes: available, groups_bytes: None },
            n_windows: 3,
            memory_bytes_per_second: None,
        }
    }

    #[test]
    fn verdicts() {
        use Verdict::{Fits, Impossible, Streams, Unplanned};
        let auto = |mb: u64| machine(Some(mb * MB), RamBudget::Auto);
        let grouped = |mb: u64, group: u64| {
            let left = MemoryLeft { machine_bytes: Some(mb * MB), groups_bytes: Some(group * MB) };
            PlanInput { left, ..auto(mb) }
        };
        let fixed = |mb: u64| machine(Some(24 << 30), RamBudget::Bytes(mb * MB));
        let rows = [
            (auto(24 << 10), Fits),
            (auto(690), Streams),
            (auto(200), Streams),
            (auto(160), Impossible), // 3 windows of 25 MB, the rest of the head, 68 MB beside them, and the margin
            (auto(0), Impossible),
            (grouped(24 << 10, 679), Fits),
            (grouped(24 << 10, 678), Streams),
            (grouped(690, 679), Streams), // the machine's margin is the larger one
            (grouped(24 << 10, 0), Impossible),
            (fixed(668), Fits),
            (fixed(667), Streams),
            (fixed(1), Impossible),
            (machine(None, RamBudget::Auto), Unplanned),
            (machine(None, RamBudget::Bytes(400 * MB)), Streams),
            (machine(Some(MB), RamBudget::Off), Unplanned),
            (PlanInput { kv_bytes: u64::MAX, ..auto(690) }, Impossible),
            (PlanInput { unit_bytes: vec![], streamable_bytes: vec![], ..fixed(1) }, Fits),
            (PlanInput { unit_bytes: vec![MB], streamable_bytes: vec![MB], ..fixed(1) }, Impossible),
        ];
        let failed: Vec<_> = rows.iter().map(|(i, v)| (Plan::new(i), v)).filter(|(p, v)| p.verdict != **v).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn what_stays_and_the_windows_fit_and_no_more_is_streamed_than_must_be() {
        for mb in (240..668).step_by(7) {
            let input = machine(None, RamBudget::Bytes(mb * MB));
            let plan = Plan::new(&input);
            let used = plan.resident_bytes() + plan.window_bytes + plan.other_bytes;
            assert!(used <= mb * MB, "{mb}: {plan:?}");
            // A page less from each unit would free too little.
            assert!(used + 23 * 4096 > mb * MB, "{mb}: {used} {plan:?}");
            assert!(plan.streamed_bytes.iter().zip(&input.streamable_bytes).all(|(s, n)| s <= n && s % 4096 == 0));
            let blocks = &plan.streamed_bytes[..22];
            assert!(blocks.iter().all(|s| *s == blocks[0]), "an even share: {plan:?}");
        }
    }

    /// Attention is smaller than the feed-forward network: once all of it streams, the rest comes
    /// from the other halves.
    #[test]
    fn halves_of_blocks_stream_the_same_or_all_they_have() {
        for mb in (240..668).step_by(7) {
            let mut input = machine(None, RamBudget::Bytes(mb * MB));
            let halves = [[5 * MB, 20 * MB].repeat(22), vec![50 * MB]].concat();
            (input.unit_bytes, input.streamable_bytes) = (halves.clone(), halves);
            let plan = Plan::new(&input);
            let used = plan.resident_bytes() + plan.window_bytes + plan.other_bytes;
            assert!(
                plan.verdict == Verdict::Streams && used <= mb * MB && used + 45 * 4096 > mb * MB,
                "{mb}: {plan:?}"
            );
            let (small, large) = (plan.streamed_bytes[0], plan.streamed_bytes[1]);
            assert!(small == large.min(5 * MB) && large <= 20 * MB, "{mb}: {plan:?}");
            let blocks = plan.streamed_bytes[..44].chunks(2);
            assert!(blocks.into_iter().all(|block| block == [small, large]), "{mb}: {plan:?}");
            assert_eq!((plan.streamed_bytes[44], plan.window_bytes), (large, 3 * large), "{mb}");
        }
    }

    #[test]
    fn what_cannot_stream_stays() {
        let mut input = machine(None, RamBudget::Bytes(600 * MB));
        input.streamable_bytes[22] = 0;
        let plan = Plan::new(&input);
        assert_eq!((plan.verdict, plan.streamed_bytes[22]), (Verdict::Streams, 0));
    }

    #[test]
    fn speeds_follow_from_the_slower_of_disk_and_memory() {
        let mut plan = Plan::new(&machine(None, RamBudget::Bytes(568 * MB)));
        assert_eq!(plan.tokens_per_second(), None);
        let streamed = plan.streamed_per_token() as f64;
        plan.disk_bytes_per_second = Some(streamed * 4.0);
        assert!((plan.tokens_per_second().unwrap() - 4.0).abs() < 1e-9);
        plan.memory_bytes_per_second = Some(600.0 * MB as f64 * 2.0);
        assert!((plan.tokens_per_second().unwrap() - 2.0).abs() < 1e-9);
        plan.memory_bytes_per_second = Some(1e15);
        assert!((plan.tokens_per_second().unwrap() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn one_line_says_what_and_why() {
        let line = |input| Plan::new(&input).to_string();
        assert!(
            line(machine(Some(1 << 40), RamBudget::Auto)).starts_with("fits: 600.0 MB of weights and 68.0 MB beside")
        );
        assert!(line(machine(None, RamBudget::Auto)).starts_with("none: "));
        assert!(line(machine(None, RamBudget::Bytes(MB))).starts_with("impossible: 1.0 MB of memory"));
        let mut plan = Plan::new(&machine(None, RamBudget::Bytes(568 * MB)));
        plan.disk_bytes_per_second = Some(1e9);
        let text = plan.to_string();
        assert!(text.starts_with("streams 11") && text.contains("about 8.") && text.contains("954 MB/s"), "{text}");
        assert!(!text.contains('\n'));
    }
}
