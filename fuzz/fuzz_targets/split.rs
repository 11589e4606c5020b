//! Any bytes as the files of a split model, put together as the program does it, from whichever of
//! them it is given: files that a small program in the input writes and then spoils, and files cut
//! out of the input itself.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use modelembed_gguf::split::{self, SplitName};
use modelembed_gguf::{Error, Gguf, GgufValue, HeaderWriter, TensorInfo, TensorType};
use modelembed_storage::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PREFIX: &str = "model";
const SAME_IN_ALL: [&str; 4] = ["general.architecture", "general.name", "general.uuid", "general.size_label"];

/// Takes the input apart; zeros where it has ended.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        self.0 = later;
        now
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// A number that is small, or as odd as bytes can make it.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => small.into(),
            200..=219 => 1 << (self.byte() & 63),
            220..=229 => u64::MAX - u64::from(self.byte()),
            _ => self.bytes(8).iter().fold(0, |n, &b| n << 8 | u64::from(b)),
        }
    }

    fn text(&mut self) -> String {
        let len = self.below(80);
        String::from_utf8_lossy(self.bytes(len)).into_owned()
    }
}

/// `right`, or seldom another value or type.
fn integer(input: &mut Input, right: u64) -> Option<GgufValue> {
    Some(match input.byte() {
        0..=99 => GgufValue::U16(right as u16),
        100..=199 => GgufValue::I32(right as i32),
        200..=215 => GgufValue::U64(right),
        216..=225 => return None,
        226..=235 => GgufValue::U64(input.number()),
        236..=240 => GgufValue::I8(input.byte() as i8),
        241..=244 => GgufValue::U32(input.number() as u32),
        245..=247 => GgufValue::Bool(true),
        248..=250 => GgufValue::String(input.bytes(5).to_vec()),
        251..=253 => GgufValue::F32(right as f32),
        _ => GgufValue::from(vec![right as u32]),
    })
}

struct Tensor {
    name: String,
    ty: TensorType,
    dims: Vec<u64>,
}

fn tensor(input: &mut Input) -> Tensor {
    let name = match input.byte() {
        n @ 0..=229 => format!("t{n}"),
        _ => input.text(),
    };
    let ty = TensorType::from_id((input.byte() % 42).into()).unwrap_or(TensorType::F32);
    let n_dims = 1 + input.below(4);
    let mut dims: Vec<u64> = (0..n_dims)
        .map(|_| match input.byte() {
            n @ 0..=239 => u64::from(n & 3) + 1,
            _ => input.number(),
        })
        .collect();
    if input.byte() < 250 {
        dims[0] = dims[0].saturating_mul(ty.block_len() as u64);
    }
    Tensor { name, ty, dims }
}

fn n_bytes(tensor: &Tensor) -> u64 {
    let row = usize::try_from(tensor.dims[0]).ok().and_then(|k| tensor.ty.row_bytes(k)).unwrap_or(0) as u64;
    // What does not fit is refused: how much of it there is does not matter.
    tensor.dims[1..].iter().try_fold(row, |n, &d| n.checked_mul(d)).filter(|n| *n < 1 << 16).unwrap_or(64)
}

/// The files that a program writes, in order.
fn written(input: &mut Input) -> Vec<Vec<u8>> {
    let n_files = 1 + input.below(5);
    let tensors: Vec<Vec<Tensor>> =
        (0..n_files).map(|_| (0..input.below(6)).map(|_| tensor(input)).collect()).collect();
    let total: usize = tensors.iter().map(Vec::len).sum();
    let mut files = Vec::new();
    for (i, tensors) in tensors.iter().enumerate() {
        let mut header = HeaderWriter::default();
        let flags = input.byte();
        header.version = if flags & 1 == 0 { 3 } else { 2 };
        if flags & 2 != 0 {
            header.alignment(1 << input.below(17));
        }
        for (key, right) in [("split.no", i), ("split.count", n_files), ("split.tensors.count", total)] {
            if let Some(value) = integer(input, right as u64) {
                header.pair(key, value);
            }
        }
        for (bit, key) in [4, 8, 16, 32].into_iter().zip(SAME_IN_ALL) {
            if flags & bit != 0 {
                header.pair(key, ["a", "b\u{1b}[2J"][usize::from(input.byte() > 250)]);
            }
        }
        tensors.iter().for_each(|t| header.tensor(&t.name, t.ty, &t.dims, n_bytes(t)));
        let mut file = header.build();
        for bytes in tensors.iter().map(n_bytes) {
            file.resize(file.len() + bytes as usize + header.padding(bytes), 0);
        }
        files.push(file);
    }
    files
}

/// Overwrites numbers, cuts, and swaps files, for as long as there is input.
fn spoil(files: &mut Vec<Vec<u8>>, input: &mut Input) {
    for _ in 0..input.below(6) {
        let (file, other) = (input.below(files.len()), input.below(files.len()));
        let what = input.byte() % 8;
        let at = input.number() as usize % files[file].len().max(1);
        match what {
            0 => files.swap(file, other),
            1 => files[file] = files[other].clone(),
            2 => files[file].truncate(at),
            3 => files[file].resize(at + input.below(256), 0),
            _ => {
                let value = input.number().to_le_bytes();
                let len = [1, 4, 8][input.below(3)].min(files[file].len() - at.min(files[file].len()));
                files[file][at..at + len].copy_from_slice(&value[..len]);
            }
        }
    }
}

/// Files cut out of the input where it says GGUF.
fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<usize> = (1..bytes.len()).filter(|&i| bytes[i..].starts_with(b"GGUF")).take(7).collect();
    let ends = starts.iter().copied().chain([bytes.len()]);
    [0].into_iter().chain(starts.iter().copied()).zip(ends).map(|(start, end)| bytes[start..end].to_vec()).collect()
}

fn name_of(number: usize, count: usize) -> String {
    format!("{PREFIX}-{number:05}-of-{count:05}.gguf")
}

#[derive(Debug)]
enum Failed {
    Missing,
    Gguf,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        assert!(!error.to_string().contains(|c: char| c.is_control()), "{error:?}");
        Failed::Gguf
    }
}

/// A file with its length and the number under which it was opened.
struct Opened {
    gguf: Gguf,
    n_bytes: u64,
    number: usize,
}

/// As the program opens a model, given the file `number` (from 1) under `file_name`.
fn open(files: &[Vec<u8>], number: usize, file_name: &str) -> Result<Vec<Opened>, Failed> {
    let before = CountingAllocator::total_bytes();
    let mut headers = 0;
    let mut read = |number: usize| {
        let bytes = files.get(number - 1).ok_or(Failed::Missing)?;
        let n_bytes = bytes.len() as u64;
        headers += n_bytes;
        Ok::<Opened, Failed>(Opened { gguf: Gguf::parse(bytes, n_bytes)?, n_bytes, number })
    };
    let named = read(number)?;
    let opened = split::open_all(
        named,
        Some(file_name),
        |file| &file.gguf,
        |number, name| {
            let parsed = SplitName::parse(name).expect("a sibling's name");
            assert!(parsed.number == number && number <= parsed.count && !name.contains(std::path::is_separator));
            read(number as usize)
        },
    );
    let joined = opened.and_then(|mut opened| {
        split::join(&mut opened.iter_mut().map(|file| &mut file.gguf).collect::<Vec<_>>())?;
        Ok(opened)
    });
    let used = CountingAllocator::total_bytes() - before;
    assert!(used <= 4 * headers + (16 << 10), "{used} bytes for headers in {headers}");
    joined
}

/// What holds for a model that was accepted.
fn check(model: &[Opened], files: &[Vec<u8>]) {
    let mut names = HashSet::new();
    let n_tensors: usize = model.iter().map(|file| file.gguf.tensors().len()).sum();
    for (i, file) in model.iter().enumerate() {
        let mut end = file.gguf.data_offset();
        assert!(file.n_bytes == files[file.number - 1].len() as u64);
        for t in file.gguf.tensors() {
            assert!(usize::from(t.shard) == i && names.insert(&t.name), "{t:?}");
            assert!(t.offset >= end && t.offset % file.gguf.alignment() == 0, "{t:?}");
            end = t.offset + t.n_bytes;
            assert!(end <= file.n_bytes, "{t:?}");
            assert_eq!(file.gguf.tensor(&t.name), Some(t));
        }
        match file.gguf.split() {
            Ok(None) => assert!(model.len() == 1),
            Ok(Some(split)) => {
                assert!(split.index as usize == i && split.count as usize == model.len() && file.number == i + 1);
                assert!(split.n_tensors.is_none_or(|n| n == n_tensors as u64));
            }
            Err(error) => panic!("{error} in a file that was accepted"),
        }
    }
    for key in SAME_IN_ALL.iter().filter(|_| model.len() > 1) {
        let mut values = model.iter().filter_map(|file| file.gguf.get(key));
        let first = values.next();
        assert!(values.all(|value| Some(value) == first), "{key}");
    }
}

fn tensors(model: &[Opened]) -> Vec<&TensorInfo> {
    model.iter().flat_map(|file| file.gguf.tensors()).collect()
}

fn run(files: &[Vec<u8>], file_name: &str) {
    let n_files = files.len();
    let models: Vec<_> = (1..=n_files).map(|number| open(files, number, &name_of(number, n_files))).collect();
    models.iter().flatten().for_each(|model| check(model, files));
    // A model of several files is the same one from whichever it is opened.
    if let Some(model) = models.iter().flatten().find(|model| model.len() > 1) {
        for other in &models {
            let other = other.as_ref().expect("opened from one file, it opens from all");
            assert_eq!(tensors(model), tensors(other));
        }
        let mut again: Vec<Opened> = open(files, 1, &name_of(1, n_files)).expect("as before");
        again.reverse();
        let mut ggufs: Vec<&mut Gguf> = again.iter_mut().map(|file| &mut file.gguf).collect();
        assert!(split::join(&mut ggufs).is_err(), "in another order");
        ggufs.reverse();
        assert!(split::join(&mut ggufs[1..]).is_err() && split::join(&mut ggufs[..n_files - 1]).is_err(), "a part");
        split::join(&mut ggufs).expect("in order");
    }
    // Under any other name.
    if let Some(Ok(model)) = files.first().map(|_| open(files, 1, file_name)) {
        check(&model, files);
    }
}

fuzz_target!(|bytes: &[u8]| {
    run(&cut(bytes), "model-00001-of-00003.gguf");
    let mut input = Input(bytes);
    let mut files = written(&mut input);
    spoil(&mut files, &mut input);
    run(&files, &input.text());
});
