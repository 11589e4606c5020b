//! How fast each reader streams a file, and what it costs the processor:
//! `stream_speed FILE [ROUNDS]`.
//!
//! Units of 8 MB are acquired one after another, and nothing is computed in between. CPU seconds
//! are the whole process's.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use modelembed_storage::{LoadMode, Storage, Stream, StreamOptions, StreamReader, StreamedRange};

const UNIT_BYTES: u64 = 8 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let path = PathBuf::from(args.next().ok_or("wanted: stream_speed FILE [ROUNDS]")?);
    let rounds: usize = args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(3);
    for _ in 0..rounds {
        for reader in [StreamReader::Ring, StreamReader::Threads] {
            for direct in [true, false] {
                match measure(&path, StreamOptions { n_windows: 3, reader, direct }) {
                    Ok(line) => println!("{line}"),
                    Err(e) => println!("{}: {e}", reader.name()),
                }
            }
        }
    }
    Ok(())
}

fn measure(path: &std::path::Path, options: StreamOptions) -> Result<String, Box<dyn Error>> {
    let storage = Storage::open(path, LoadMode::Map, &mut |_| ControlFlow::Continue(()))?;
    let n_units = storage.len() / UNIT_BYTES;
    let unit = |i: u64| vec![StreamedRange { file: 0, bytes: i * UNIT_BYTES..(i + 1) * UNIT_BYTES }];
    let units: Vec<_> = (0..n_units).map(unit).collect();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let stream = Stream::start(&[&storage], &units, options)?;
    for i in 0..units.len() {
        stream.acquire(i, &|| false)?;
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (stats, gb) = (stream.stats(), (n_units * UNIT_BYTES) as f64 / 1e9);
    let way = if stats.is_direct { "direct" } else { "buffered" };
    // Not of the mapping that streams: that tells of the windows.
    let file = Storage::open(path, LoadMode::Map, &mut |_| ControlFlow::Continue(()))?;
    let cached = file.residency(0..file.len()).map_or(0, |r| r.resident_bytes);
    Ok(format!(
        "{:8} {way:8} {:6.0} MB/s, {:.3} CPU s/GB, {} MB left in the cache",
        stats.reader.name(),
        1e3 * gb / seconds,
        cpu / gb,
        cached >> 20
    ))
}

/// Processor time of this process so far, in user and system mode.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, in hundredths; the second one, the name, may hold blanks.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}
