//! Orders that depend on times, which tests set themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelembed::{Engine, EngineOptions, LoadMode, LoadOptions, Model, Sampler, SamplerOptions, TokenId};
use modelembed_testkit::{tiny, tiny_spec};
use tokio::sync::mpsc;

use super::*;
use crate::answer::{Event, Line};
use crate::request::Request;
use crate::status::Limits;
use crate::voice::{Out, Voice};

struct Bench {
    scheduler: Scheduler,
    readers: Vec<mpsc::Receiver<Event>>,
}

impl Bench {
    /// Steps of 150 ms on a machine where a row of a prompt takes a millisecond.
    fn new() -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, tiny(&tiny_spec("llama"))).expect("a writable folder");
        let options = LoadOptions::default().threads(1).mode(LoadMode::Buffer);
        let model = Model::load(&path, &options).expect("a model");
        let engine = EngineOptions::default().sequences(4).ctx_tokens(2048);
        let engine = Engine::new(&model, &engine).expect("an engine");
        let limits = Limits { ctx_tokens: 2048, sequences: 4, queue: 9, n_vocab: 320, page_tokens: 256 };
        let shared = Arc::new(Shared::new(model, limits, 36));
        let mut scheduler = Scheduler::new(shared, engine, &Options::default().sequences(4));
        scheduler.pace.learn(Duration::from_millis(600), 0, 600, 0);
        Bench { scheduler, readers: Vec::new() }
    }

    /// A request that came so many milliseconds after the start.
    fn add(&mut self, came_ms: u64, prompt: Vec<TokenId>) {
        let (sender, reader) = mpsc::channel(10);
        self.readers.push(reader);
        let mut request = Request::new(prompt);
        request.max_tokens = Some(3);
        let sampler = Sampler::new(SamplerOptions::default()).expect("valid");
        let out = Out::new(sender, Arc::new(Line::default()));
        let voice = Voice::new(&self.scheduler.shared.model, &request, sampler, 3, out);
        let task = Task::new(request, voice);
        let arrived = self.scheduler.start + Duration::from_millis(came_ms);
        let id = self.readers.len() as u64;
        self.scheduler.tasks.push(Task { id, arrived, ..task });
    }

    /// Which tasks the next step has slices of, in their order, and of how many tokens.
    fn planned(&mut self) -> Vec<(u64, usize)> {
        let plan = self.scheduler.plan();
        plan.iter().map(|slice| (self.scheduler.tasks[slice.task].id, slice.n)).collect()
    }
}

fn prompt(n: usize, seed: u32) -> Vec<TokenId> {
    (0..n as u32).map(|i| TokenId(3 + (seed * 50 + i * (seed + 1)) % 300)).collect()
}

#[test]
fn a_long_prompt_lets_short_ones_pass_until_its_time_has_come() {
    let mut bench = Bench::new();
    bench.add(0, prompt(1000, 1));
    assert_eq!(bench.planned(), [(1, 140)], "most of a step of 150 ms, in multiples of four");
    // It takes a second: who comes within it and is shorter passes, unless it comes too late.
    bench.add(100, prompt(20, 2));
    bench.add(950, prompt(40, 3));
    bench.add(970, prompt(40, 4));
    assert_eq!(bench.planned(), [(2, 20), (3, 40), (1, 80)]);
}

#[test]
fn equal_prompts_come_in_their_order() {
    let mut bench = Bench::new();
    for (i, came_ms) in [30, 10, 20].into_iter().enumerate() {
        bench.add(came_ms, prompt(100, i as u32));
    }
    assert_eq!(bench.planned(), [(2, 100), (3, 40)]);
}

#[test]
fn what_is_there_already_costs_no_time() {
    let mut bench = Bench::new();
    bench.add(0, prompt(900, 1));
    let plan = bench.scheduler.plan();
    bench.scheduler.step(&plan);
    bench.scheduler.leave(0, EndReason::Cancelled);
    // Of 240 tokens 140 are there, and so it comes before 150 of another one.
    bench.add(0, prompt(150, 2));
    bench.add(0, [&prompt(140, 1)[..], &prompt(100, 3)].concat());
    assert_eq!(bench.planned().first().map(|slice| slice.0), Some(3));
}

#[test]
fn who_computes_what_another_one_begins_with_is_waited_for() {
    let mut bench = Bench::new();
    bench.add(0, prompt(40, 1));
    bench.add(0, [&prompt(30, 1)[..], &prompt(15, 2)].concat());
    bench.add(0, [&prompt(10, 1)[..], &prompt(40, 3)].concat());
    assert_eq!(bench.planned(), [(1, 40), (3, 50)], "ten tokens are not worth it");
    let plan = bench.scheduler.plan();
    bench.scheduler.step(&plan);
    assert!(bench.planned().contains(&(2, 15)), "thirty are there");
}

#[test]
fn who_waits_for_pages_does_not_stop_those_that_hold_them() {
    let mut bench = Bench::new();
    bench.add(0, prompt(1000, 1));
    bench.add(0, prompt(20, 2));
    bench.add(0, prompt(30, 3));
    assert_eq!(bench.planned(), [(2, 20), (3, 30), (1, 90)]);
    // The shortest goes back, and waits for more pages than there are beside the others.
    bench.scheduler.put_down(1);
    bench.scheduler.tasks[1].n_preempted = 100;
    bench.scheduler.put_down(2);
    let pages = bench.scheduler.engine.page_use().total;
    assert!(!bench.scheduler.admit(1, pages));
    bench.scheduler.tasks[1].tokens.extend(prompt(pages * 256, 4));
    assert_eq!(bench.planned(), [(1, 140)], "nor does anybody else begin before it");
}

#[test]
fn a_drained_scheduler_has_given_everything_back() {
    let mut bench = Bench::new();
    bench.add(0, prompt(300, 1));
    bench.scheduler.shared.change(|inbox| inbox.drain = Some(Instant::now()));
    assert!(bench.scheduler.receive());
    assert!(bench.scheduler.tasks.is_empty() && bench.scheduler.plan().is_empty());
    assert_eq!(bench.scheduler.engine.page_use().used, 0);
}
