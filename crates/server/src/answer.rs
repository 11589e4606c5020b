//! Answers under way: several choices together, whole or as a stream.

use std::time::Duration;

use hyper::body::Bytes;
use modelembed_serve::{Answer, Event, Usage};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::App;
use crate::encode::{Choice, Head, Kind, Totals, chat_logprobs, completion_logprobs};
use crate::error::ApiError;
use crate::events::{Happening, Interpreter};

/// Pieces of a body that wait for the connection.
const FRAMES: usize = 32;
/// Events of several choices that wait to be written.
const EVENTS: usize = 64;

/// The choices of an answer. Dropping them cancels what is still computed.
pub(crate) struct Choices {
    events: mpsc::Receiver<(usize, Event)>,
    /// One for each choice: they pass events on.
    _tasks: JoinSet<()>,
    choices: Vec<One>,
    n_running: usize,
    app: App,
    begun: Instant,
}

/// One choice.
struct One {
    interpreter: Interpreter,
    /// Of those with its prompt.
    is_first: bool,
    /// When its last token came.
    last_token: Option<Instant>,
}

impl Choices {
    /// Of these answers, each with what tells its parts apart. `n` of them in turn are of one
    /// prompt.
    pub fn new(app: &App, answers: Vec<(Answer, Interpreter)>, n: usize) -> Choices {
        let (sender, events) = mpsc::channel(EVENTS);
        let mut tasks = JoinSet::new();
        let mut choices = Vec::with_capacity(answers.len());
        for (index, (mut answer, interpreter)) in answers.into_iter().enumerate() {
            choices.push(One { interpreter, is_first: index % n.max(1) == 0, last_token: None });
            let sender = sender.clone();
            tasks.spawn(async move {
                while let Some(event) = answer.next().await {
                    if sender.send((index, event)).await.is_err() {
                        return;
                    }
                }
            });
        }
        let n_running = choices.len();
        Choices { events, _tasks: tasks, n_running, choices, app: app.clone(), begun: Instant::now() }
    }

    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// What happens next, and to which choice; `None` once all have ended.
    async fn next(&mut self) -> Option<(usize, Happening)> {
        while self.n_running > 0 {
            let Some((index, event)) = self.events.recv().await else {
                self.n_running = 0;
                return Some((0, Happening::Failed("the answer ended without a word".to_owned())));
            };
            if matches!(event, Event::Token { .. }) {
                self.count_token(index);
            }
            if let Some(happening) = self.choices[index].interpreter.happening(event) {
                if matches!(happening, Happening::End(..) | Happening::Failed(_)) {
                    self.n_running -= 1;
                    self.app.metrics.whole.observe(self.begun.elapsed());
                }
                return Some((index, happening));
            }
        }
        None
    }

    fn count_token(&mut self, index: usize) {
        let now = Instant::now();
        let metrics = &self.app.metrics;
        match self.choices[index].last_token.replace(now) {
            None => metrics.first_token.observe(now - self.begun),
            Some(last) => metrics.next_token.observe(now - last),
        }
    }

    /// Adds the tokens of a choice that has ended.
    fn add_usage(&self, index: usize, usage: Usage, totals: &mut Totals) {
        let one = &self.choices[index];
        totals.add(usage, one.interpreter.reasoning_tokens, one.is_first);
    }
}

/// A whole answer, once all choices have ended. `begun` are the choices so far: their prompts'
/// texts where they are wanted.
pub(crate) async fn whole(
    app: &App,
    head: &Head,
    mut choices: Choices,
    mut begun: Vec<Choice>,
) -> Result<Value, ApiError> {
    let mut totals = Totals::default();
    while let Some((index, happening)) = choices.next().await {
        let choice = &mut begun[index];
        match happening {
            Happening::PromptRow(row) => choice.prompt_rows.push(row),
            Happening::Parts(parts, row) => {
                choice.add(parts);
                choice.rows.extend(row);
            }
            Happening::End(parts, finish, usage) => {
                choice.add(parts);
                choice.finish = Some(finish);
                choices.add_usage(index, usage, &mut totals);
            }
            Happening::Failed(why) => return Err(ApiError::failed(why)),
        }
    }
    Ok(head.whole(begun, &totals, app.tokenizer()))
}

/// What goes into a stream: pieces for the connection, each within a time.
struct Writer {
    frames: mpsc::Sender<Bytes>,
    time: Duration,
}

/// The client is gone, or does not read.
struct Gone;

impl Writer {
    async fn write(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        match tokio::time::timeout(self.time, self.frames.send(bytes.into())).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    async fn event(&self, value: &Value) -> Result<(), Gone> {
        self.write(format!("data: {value}\n\n").into_bytes()).await
    }
}

/// The body of a stream of events. What happens is written as it comes, and a sign of life after
/// some time of silence.
pub(crate) fn stream(app: &App, head: Head, choices: Choices, with_usage: bool) -> mpsc::Receiver<Bytes> {
    let (frames, receiver) = mpsc::channel(FRAMES);
    let (writer, heartbeat) = (Writer { frames, time: app.options.write_time }, app.options.heartbeat);
    let app = app.clone();
    tokio::spawn(async move {
        let _ = write_stream(&app, &head, choices, with_usage, &writer, heartbeat).await;
    });
    receiver
}

async fn write_stream(
    app: &App,
    head: &Head,
    mut choices: Choices,
    with_usage: bool,
    writer: &Writer,
    heartbeat: Duration,
) -> Result<(), Gone> {
    if head.kind == Kind::Chat {
        for index in 0..choices.len() {
            writer.event(&head.opening(index)).await?;
        }
    }
    let mut totals = Totals::default();
    let mut offsets = vec![0; choices.len()];
    let mut silent_since = Instant::now();
    loop {
        let next = tokio::select! {
            next = choices.next() => next,
            () = writer.frames.closed() => return Err(Gone),
            () = tokio::time::sleep_until(silent_since + heartbeat) => {
                writer.event(&head.nothing()).await?;
                silent_since = Instant::now();
                continue;
            }
        };
        let Some((index, happening)) = next else { break };
        let chunks = match happening {
            Happening::PromptRow(_) => Vec::new(),
            Happening::Parts(parts, row) => {
                let logprobs = row.map_or(Value::Null, |row| match head.kind {
                    Kind::Chat => chat_logprobs(&[row], app.tokenizer()),
                    Kind::Completion => {
                        let offset = offsets[index];
                        offsets[index] += String::from_utf8_lossy(&row.bytes).chars().count();
                        completion_logprobs(&[row], offset, app.tokenizer())
                    }
                });
                head.parts(index, &parts, logprobs)
            }
            Happening::End(parts, finish, usage) => {
                choices.add_usage(index, usage, &mut totals);
                let mut chunks = head.parts(index, &parts, Value::Null);
                chunks.push(head.closing(index, finish));
                chunks
            }
            Happening::Failed(why) => {
                writer.event(&ApiError::failed(why).body()).await?;
                return writer.write(b"data: [DONE]\n\n".to_vec()).await;
            }
        };
        if !chunks.is_empty() {
            silent_since = Instant::now();
        }
        for chunk in chunks {
            writer.event(&chunk).await?;
        }
    }
    if with_usage {
        writer.event(&head.usage(&totals)).await?;
    }
    writer.write(b"data: [DONE]\n\n".to_vec()).await
}

/// The body of an answer that is one JSON text and takes long: blanks before it, which JSON
/// allows, are the signs of life.
pub(crate) fn late(
    app: &App,
    answer: impl Future<Output = Result<Value, ApiError>> + Send + 'static,
) -> mpsc::Receiver<Bytes> {
    let (frames, receiver) = mpsc::channel(FRAMES);
    let (writer, heartbeat) = (Writer { frames, time: app.options.write_time }, app.options.heartbeat);
    tokio::spawn(async move {
        let mut answer = std::pin::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => {
                    let value = answer.unwrap_or_else(|error| error.body());
                    let _ = writer.write(value.to_string().into_bytes()).await;
                    return;
                }
                () = writer.frames.closed() => return,
                () = tokio::time::sleep(heartbeat) => {
                    if writer.write(b" ".to_vec()).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    receiver
}
