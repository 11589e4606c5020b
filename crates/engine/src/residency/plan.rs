//! What of a model stays in memory: decided from sizes and what the machine allows, before a byte
//! is read.
//!
//! Reading a model larger than memory in a circle, as tokens do, through a cache that forgets what
//! was used longest ago misses every time. The best that can be done is to keep a fixed part P of
//! the M bytes and to read the rest for every token: a token then takes max(M / memory bandwidth,
//! (M - P) / disk bandwidth).
//!
//! Of a mixture a token reads a few experts, often those that the last ones used. There all that
//! every token reads stays, and of the experts those that were used last: what is read for a token
//! depends on how many of its experts are among them.

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

/// Shares of used experts that are in memory, for which a plan tells the speed: where half of the
/// experts are, the middle one is usual.
pub const HIT_RATES: [f64; 3] = [0.4, 0.65, 0.8];

/// Sizes of a mixture's experts. An expert of one layer, with all its matrices, is an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpertSizes {
    /// Items.
    pub n_items: u64,
    /// Those that a token uses.
    pub n_used: u64,
    /// Bytes of all of them.
    pub all_bytes: u64,
    /// Bytes of those that a token uses.
    pub used_bytes: u64,
    /// Bytes that the greatest one takes in memory.
    pub slot_bytes: u64,
    /// Memory that is enough to compute with.
    pub least_bytes: u64,
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
    /// Wider chunks of a prompt, the widest first, each with its working memory: where experts are
    /// read for each chunk, fewer chunks read less.
    pub wider_chunks: Vec<(usize, u64)>,
    /// What the user said.
    pub budget: RamBudget,
    /// Bytes that the machine and the control groups leave.
    pub left: MemoryLeft,
    /// Units that are in memory at once while streaming.
    pub n_windows: usize,
    /// Bytes a second of the processor reading memory, where measured.
    pub memory_bytes_per_second: Option<f64>,
    /// The experts among the weights, where they can be kept one by one.
    pub experts: Option<ExpertSizes>,
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
    /// Bytes of weights: M. Of a mixture's a token reads a part.
    pub weight_bytes: u64,
    /// Bytes that may be used; 0 where unplanned.
    pub budget_bytes: u64,
    /// Bytes of KV cache, working memory and reserve.
    pub other_bytes: u64,
    /// Of each unit the bytes to be streamed; empty unless the verdict is to stream.
    pub streamed_bytes: Vec<u64>,
    /// Bytes of the windows.
    pub window_bytes: u64,
    /// The experts, of a mixture.
    pub experts: Option<ExpertSizes>,
    /// Bytes of experts that stay, while others are read when they are chosen; 0 unless that is how
    /// the model streams.
    pub slot_bytes: u64,
    /// Tokens of a prompt that are computed together at most, if that is other than usual.
    pub chunk_tokens: Option<usize>,
    /// Bytes a second of direct reads, once measured.
    pub disk_bytes_per_second: Option<f64>,
    /// As in the input.
    pub memory_bytes_per_second: Option<f64>,
}

/// The part of the memory for experts that wider chunks may take.
const WIDER_SHARE: u64 = 8;

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
            experts: input.experts,
            slot_bytes: 0,
            chunk_tokens: None,
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
        let mut for_experts = for_weights.saturating_sub(plan.dense_bytes());
        if let Some(experts) = input.experts.filter(|experts| for_experts >= experts.least_bytes) {
            plan.verdict = Verdict::Streams;
            let more = |scratch_bytes: u64| scratch_bytes.saturating_sub(input.scratch_bytes);
            let most = (for_experts / WIDER_SHARE).min(for_experts - experts.least_bytes);
            if let Some(&(cols, scratch_bytes)) = input.wider_chunks.iter().find(|(_, bytes)| more(*bytes) <= most) {
                plan.chunk_tokens = Some(cols);
                plan.other_bytes += more(scratch_bytes);
                for_experts -= more(scratch_bytes);
            }
            plan.slot_bytes = for_experts.min(experts.n_items * experts.slot_bytes);
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

    /// Whether experts are kept one by one, and read when they are chosen.
    pub fn keeps_experts(&self) -> bool {
        self.slot_bytes > 0
    }

    /// Bytes of weights that every token reads.
    pub fn dense_bytes(&self) -> u64 {
        self.weight_bytes - self.experts.map_or(0, |experts| experts.all_bytes.min(self.weight_bytes))
    }

    /// Bytes of weights that one token reads, from memory or from the disk.
    pub fn used_bytes(&self) -> u64 {
        self.dense_bytes() + self.experts.map_or(0, |experts| experts.used_bytes)
    }

    /// Bytes that are read from the disk for every token, as usual where that depends on what the
    /// token is.
    pub fn streamed_per_token(&self) -> u64 {
        if self.keeps_experts() { self.missed_bytes(HIT_RATES[1]) } else { self.streamed_bytes.iter().sum() }
    }

    /// Bytes of experts that are read from the disk for a token if this share of those that it uses
    /// is in memory; 0 where all are.
    pub fn missed_bytes(&self, hit_rate: f64) -> u64 {
        let used = if self.keeps_experts() { self.experts.map_or(0, |experts| experts.used_bytes) } else { 0 };
        (used as f64 * (1.0 - hit_rate)).round() as u64
    }

    /// Bytes of weights that stay: P. Of experts none stays for good.
    pub fn resident_bytes(&self) -> u64 {
        if self.keeps_experts() { self.dense_bytes() } else { self.weight_bytes - self.streamed_per_token() }
    }

    /// 1 / max(bytes that a token reads / memory bandwidth, those from the disk / disk bandwidth), as
    /// far as the two are known.
    pub fn tokens_per_second(&self) -> Option<f64> {
        self.speed(self.streamed_per_token())
    }

    /// The same if this share of the experts that a token uses is in memory.
    pub fn tokens_per_second_at(&self, hit_rate: f64) -> Option<f64> {
        self.speed(self.missed_bytes(hit_rate))
    }

    fn speed(&self, disk_bytes: u64) -> Option<f64> {
        let seconds = |bytes: u64, speed: Option<f64>| speed.filter(|s| *s > 0.0).map(|speed| bytes as f64 / speed);
        let memory = seconds(self.used_bytes(), self.memory_bytes_per_second);
        let disk = match disk_bytes {
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
            Verdict::Streams if self.keeps_experts() => {
                let all = self.experts.map_or(0, |experts| experts.all_bytes);
                let (dense, slots) = (mb(self.dense_bytes()), mb(self.slot_bytes));
                write!(
                    f,
                    "streams experts: {dense} of weights that every token needs and {slots} of {} of experts stay",
                    mb(all)
                )?;
                let speeds: Vec<_> = HIT_RATES.iter().filter_map(|rate| self.tokens_per_second_at(*rate)).collect();
                if let [low, usual, high] = speeds[..] {
                    let [few, half, many] = HIT_RATES.map(|rate| rate * 100.0);
                    write!(
                        f,
                        "; {few:.0}, {half:.0} or {many:.0} % of those that tokens choose are then there, for about "
                    )?;
                    write!(f, "{low:.1}, {usual:.1} or {high:.1} tokens/s")?;
                }
                write!(f, ": {weights} of weights and {others} beside them exceed {budget} of memory")?;
                if let Some(disk) = self.disk_bytes_per_second {
                    write!(f, "; the disk reads {:.0} MB/s", disk / f64::from(1 << 20))?;
                }
                Ok(())
            }
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

/// What may be used of what is left.
fn automatic(left: MemoryLeft) -> Option<u64> {
    headroom(left).map(|bytes| u64::try_from(bytes).unwrap_or(0))
}

/// What is left beyond what is not to be used; below 0 where too much is in use. Of the machine's
/// memory some is for other programs; of a control group's, where others' use is counted already,
/// for the kernel's on behalf of this one (page tables, 2 bytes a thousand). Using too much costs
/// pages of the model, which are read again, before it costs the process.
pub(crate) fn headroom(left: MemoryLeft) -> Option<i64> {
    let beyond = |left: u64, margin: u64| i64::try_from(left).unwrap_or(i64::MAX).saturating_sub_unsigned(margin);
    let machine = left.machine_bytes.map(|left| beyond(left, (16 << 20) + left / 50));
    let groups = left.groups_bytes.map(|left| beyond(left, (4 << 20) + left / 100));
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
            wider_chunks: Vec::new(),
            budget,
            left: MemoryLeft { machine_bytes: available, groups_bytes: None },
            n_windows: 3,
            memory_bytes_per_second: None,
            experts: None,
        }
    }

    /// A mixture of 16 layers with 64 experts of 3 MB each, of which a token uses 8, and 300 MB
    /// beside them.
    fn mixture(budget_mb: u64) -> PlanInput {
        PlanInput {
            unit_bytes: [vec![12 * MB; 16], vec![192 * MB; 16], vec![108 * MB]].concat(),
            streamable_bytes: [vec![12 * MB; 16], vec![192 * MB; 16], vec![108 * MB]].concat(),
            experts: Some(ExpertSizes {
                n_items: 1024,
                n_used: 128,
                all_bytes: 3072 * MB,
                used_bytes: 384 * MB,
                slot_bytes: 3 * MB + 12288,
                least_bytes: 20 * (3 * MB + 12288),
            }),
            ..machine(None, RamBudget::Bytes(budget_mb * MB))
        }
    }

    #[test]
    fn of_a_mixture_all_that_tokens_share_stays_and_experts_have_the_rest() {
        let mut plan = Plan::new(&mixture(1500));
        assert_eq!((plan.verdict, plan.keeps_experts(), plan.window_bytes), (Verdict::Streams, true, 0));
        assert_eq!((plan.dense_bytes(), plan.resident_bytes()), (300 * MB, 300 * MB));
        assert_eq!(plan.slot_bytes, 1500 * MB - plan.other_bytes - 300 * MB);
        assert_eq!(plan.missed_bytes(0.75), 96 * MB);
        assert_eq!((plan.streamed_per_token(), plan.tokens_per_second()), (plan.missed_bytes(0.65), None));
        plan.disk_bytes_per_second = Some(192.0 * MB as f64);
        assert!((plan.tokens_per_second_at(0.75).unwrap() - 2.0).abs() < 1e-9);
        // All that a token reads is 684 MB.
        plan.memory_bytes_per_second = Some(684.0 * MB as f64);
        assert!((plan.tokens_per_second_at(0.75).unwrap() - 1.0).abs() < 1e-9);
        let line = plan.to_string();
        assert!(line.starts_with("streams experts: 300.0 MB of weights") && line.contains("40, 65 or 80 %"), "{line}");
        assert!(line.contains("0.8, 1.0 or 1.0 tokens/s"), "{line}");
    }

    #[test]
    fn long_prompts_get_an_eighth_of_the_memory_for_experts() {
        // 68 MB beside the weights, 300 MB of them.
        for (mb, chunk_tokens, more_mb) in [(1500, Some(2048), 80), (700, Some(1024), 40), (600, None, 0)] {
            let input = PlanInput { wider_chunks: vec![(2048, 100 * MB), (1024, 60 * MB)], ..mixture(mb) };
            let (plan, usual) = (Plan::new(&input), Plan::new(&mixture(mb)));
            assert_eq!((plan.chunk_tokens, plan.slot_bytes), (chunk_tokens, usual.slot_bytes - more_mb * MB), "{mb}");
            assert_eq!(plan.other_bytes, usual.other_bytes + more_mb * MB);
        }
        let input = PlanInput { wider_chunks: vec![(2048, 100 * MB)], ..mixture(4000) };
        assert_eq!(Plan::new(&input).chunk_tokens, None, "it fits");
    }

    #[test]
    fn a_mixture_fits_or_streams_as_others_do_where_that_is_not_possible() {
        assert_eq!(Plan::new(&mixture(4000)).verdict, Verdict::Fits);
        let nearly = Plan::new(&mixture(3430));
        assert!(nearly.keeps_experts() && nearly.slot_bytes < 3072 * MB, "{nearly:?}");
        // 68 MB beside the weights, 300 MB of them, 20 slots of 3 MB.
        let rows = [(429, true), (427, false)];
        for (mb, keeps) in rows {
            assert_eq!(Plan::new(&mixture(mb)).keeps_experts(), keeps, "{mb}");
        }
        assert_eq!(Plan::new(&mixture(100)).verdict, Verdict::Impossible);
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
