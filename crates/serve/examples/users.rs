//! Several users at once, and what each of them sees: how many tokens a second come in all, how
//! long the first one takes, and the gaps between those that follow. With a length of a long prompt
//! one more user comes with it, when the others are being answered.
//!
//!     users MODEL [USERS] [PROMPT_TOKENS] [ANSWER_TOKENS] [LONG_PROMPT_TOKENS]

use std::error::Error;
use std::time::{Duration, Instant};

use modelembed::{Model, SamplerOptions, TokenId};
use modelembed_serve::{Answer, Event, Options, Request, start};

/// When tokens came, of one answer.
struct Times {
    asked: Instant,
    tokens: Vec<Instant>,
}

impl Times {
    fn read(mut answer: Answer, asked: Instant) -> Times {
        let mut tokens = Vec::new();
        while let Some(event) = answer.blocking_next() {
            match event {
                Event::Token { .. } => tokens.push(Instant::now()),
                Event::End(end) if tokens.is_empty() => eprintln!("{:?}", end.reason),
                _ => {}
            }
        }
        Times { asked, tokens }
    }

    fn first(&self) -> Duration {
        self.tokens.first().map_or(Duration::ZERO, |first| *first - self.asked)
    }

    fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.tokens.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// The value that a part of some values is not above.
fn quantile(mut values: Vec<Duration>, part: f64) -> f64 {
    values.sort();
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).map_or(0.0, |value| value.as_secs_f64() * 1e3)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: users MODEL [USERS] [PROMPT] [ANSWER] [LONG_PROMPT]")?;
    let numbers: Vec<usize> = args.map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let number = |i: usize, usual: usize| numbers.get(i).copied().unwrap_or(usual);
    let (users, n_prompt, n_answer, n_long) = (number(0, 8), number(1, 110), number(2, 48), number(3, 0));

    let model = Model::open(&path)?;
    let text = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so. ";
    let ids = model.tokenizer().encode(text.repeat(1 + n_prompt.max(n_long) / 8).as_bytes(), Default::default())?;
    // Nobody begins as another one does.
    let prompt = |user: usize, n: usize| -> Vec<TokenId> {
        std::iter::once(ids[user % ids.len()]).chain(ids.iter().skip(user).copied()).take(n).collect()
    };
    let request = |user: usize, n: usize, most: usize| {
        let mut request = Request::new(prompt(user, n));
        request.sampling = SamplerOptions::default().temp(0.0);
        request.max_tokens = Some(most);
        request.ignore_eos = true;
        request
    };
    let handle = start(model, Options::default().sequences(users.max(1) + usize::from(n_long > 0)))?;
    // Pages of the file, and what is learned of the machine.
    Times::read(handle.submit(request(users + 1, n_prompt, n_answer))?, Instant::now());

    let begin = Instant::now();
    let answers = (0..users).map(|user| handle.submit(request(user, n_prompt, n_answer)));
    let answers: Vec<Answer> = answers.collect::<Result<_, _>>()?;
    let (times, long) = std::thread::scope(|scope| {
        let readers: Vec<_> =
            answers.into_iter().map(|answer| scope.spawn(move || Times::read(answer, begin))).collect();
        let long = (n_long > 0).then(|| {
            while handle.status().running < users {
                std::thread::sleep(Duration::from_millis(1));
            }
            let asked = Instant::now();
            handle.submit(request(users + 2, n_long, 8)).map(|answer| Times::read(answer, asked))
        });
        let times: Vec<Times> = readers.into_iter().filter_map(|reader| reader.join().ok()).collect();
        (times, long)
    });
    let took = begin.elapsed().as_secs_f64();
    let n: usize = times.iter().map(|times| times.tokens.len()).sum();
    println!("{users} users: {:.1} tokens/s in all", n as f64 / took);
    let firsts: Vec<Duration> = times.iter().map(Times::first).collect();
    let gaps: Vec<Duration> = times.iter().flat_map(Times::gaps).collect();
    println!("first token: median {:.0} ms, last {:.0} ms", quantile(firsts.clone(), 0.5), quantile(firsts, 1.0));
    let [median, p99, most] = [0.5, 0.99, 1.0].map(|part| quantile(gaps.clone(), part));
    println!("gaps: median {median:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms");
    if let Some(long) = long {
        println!("a prompt of {n_long} tokens beside them: first token after {:.1} s", long?.first().as_secs_f64());
    }
    let status = handle.status();
    println!("{} steps, {:?}", status.totals.steps, status.totals);
    Ok(())
}
