//! The pool's promises, checked from outside.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::*},
    },
    thread,
    time::Duration,
};

use modelembed_pool::{Blocks, Grid, Groups, PerWorker, Pool, Rows, Runs, Tiles};

const THREADS: [usize; 4] = [1, 2, 3, 8];

#[test]
fn every_item_once_in_chunks_at_multiples_of_the_grain() {
    for threads in THREADS {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for (n, grain) in [(0, 4), (1, 4), (4, 4), (5, 4), (7, 1), (1000, 7), (1000, 2000), (64, 0)] {
            let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            let wrong = Mutex::new(Vec::new());
            pool.run(n, grain, (), |items, (), worker| {
                let step = grain.max(1);
                let full = items.len() == step || items.end == n;
                if items.is_empty() || items.start % step != 0 || !full || worker.index() >= threads {
                    wrong.lock().unwrap().push(items.clone());
                }
                items.for_each(|i| _ = seen[i].fetch_add(1, Relaxed));
            });
            assert_eq!(*wrong.lock().unwrap(), [], "{threads} threads, {n} items, grain {grain}");
            assert!(seen.iter().all(|count| count.load(Relaxed) == 1), "{threads} threads, {n} items, grain {grain}");
        }
    }
}

#[test]
fn outputs_fall_apart_without_gaps() {
    for threads in THREADS {
        let pool = Pool::new(threads);
        let (n, stride, n_cols, block) = (53, 60, 3, 5);
        let mut elements = vec![0usize; n];
        let mut blocks = vec![0usize; n * block];
        // The last column stops after the loop's rows.
        let mut matrix = vec![-1f32; stride * (n_cols - 1) + n];
        let out = (&mut elements[..], Blocks { data: &mut blocks, block }, Rows::new(&mut matrix, stride, n_cols));
        pool.run(n, 4, out, |items, (elements, blocks, mut rows), _| {
            assert_eq!((elements.len(), blocks.len()), (items.len(), items.len() * block));
            assert_eq!((rows.n_rows(), rows.n_cols()), (items.len(), n_cols));
            for (j, i) in items.enumerate() {
                elements[j] += i + 1;
                blocks[j * block..][..block].iter_mut().for_each(|x| *x += i + 1);
                for c in 0..n_cols {
                    rows.column(c)[j] += (1000 * c + i + 1) as f32;
                }
            }
        });
        assert!(elements.iter().enumerate().all(|(i, &x)| x == i + 1));
        assert!(blocks.iter().enumerate().all(|(i, &x)| x == i / block + 1));
        for (i, &x) in matrix.iter().enumerate() {
            let (c, r) = (i / stride, i % stride);
            let want = if r < n { (1000 * c + r) as f32 } else { -1.0 };
            assert_eq!(x, want, "{threads} threads, column {c}, row {r}");
        }
    }
}

#[test]
fn a_group_of_items_has_one_place_in_the_output() {
    for threads in THREADS {
        let pool = Pool::new(threads);
        // Groups as large as chunks, smaller, one for all, and a last one that is not full.
        for (n, grain, size) in [(48usize, 4, 4), (53, 4, 4), (53, 12, 4), (53, 1, 1), (53, 100, 60), (0, 4, 4)] {
            let n_groups = n.div_ceil(size);
            let (mut sums, mut matrix) = (vec![0; n_groups], vec![0; 3 * n_groups]);
            let out = (Groups { size, out: &mut sums[..] }, Groups { size, out: Rows::new(&mut matrix, n_groups, 3) });
            pool.run(n, grain, out, |items, (sums, mut rows), _| {
                assert_eq!((sums.len(), rows.n_rows()), (items.len().div_ceil(size), items.len().div_ceil(size)));
                for (j, i) in items.enumerate() {
                    sums[j / size] += i + 1;
                    for c in 0..rows.n_cols() {
                        rows.column(c)[j / size] += 1000 * c + i + 1;
                    }
                }
            });
            for (g, &sum) in sums.iter().enumerate() {
                let items = g * size..n.min((g + 1) * size);
                let want: usize = items.clone().map(|i| i + 1).sum();
                let columns = [0, 1, 2].map(|c| matrix[c * n_groups + g]);
                let all = [sum, columns[0], columns[1], columns[2]];
                let more = |c: usize| want + 1000 * c * items.len();
                assert_eq!(
                    all,
                    [want, want, more(1), more(2)],
                    "{threads} threads, {n} by {grain}, group {g} of {size}"
                );
            }
        }
    }
}

#[test]
fn an_item_has_a_run_of_the_output() {
    for threads in THREADS {
        let pool = Pool::new(threads);
        // (items, grain, elements a run, columns, elements from column to column)
        for (n, grain, len, n_cols, stride) in
            [(48usize, 4, 3usize, 2, 150), (5, 64, 16, 3, 80), (7, 2, 1, 1, 7), (0, 1, 4, 2, 9)]
        {
            let (mut runs, mut columns) = (vec![0; n * len], vec![0; n_cols * stride]);
            let out = (Runs { len, out: &mut runs[..] }, Runs { len, out: Rows::new(&mut columns, stride, n_cols) });
            pool.run(n, grain, out, |items, (runs, mut rows), _| {
                assert_eq!((runs.len(), rows.n_rows()), (items.len() * len, items.len() * len));
                for (j, i) in items.enumerate() {
                    runs[j * len..][..len].fill(i + 1);
                    for c in 0..rows.n_cols() {
                        rows.column(c)[j * len..][..len].fill(1000 * c + i + 1);
                    }
                }
            });
            assert!(runs.iter().enumerate().all(|(at, &x)| x == at / len + 1), "{threads} threads, {n} runs of {len}");
            for (at, &x) in columns.iter().enumerate() {
                let (c, i) = (at / stride, at % stride / len);
                assert_eq!(
                    x,
                    if i < n { 1000 * c + i + 1 } else { 0 },
                    "{threads} threads, column {c}, run {i} of {len}"
                );
            }
        }
    }
}

#[test]
fn tiles_of_a_matrix_fall_apart_without_gaps() {
    for threads in THREADS {
        let pool = Pool::new(threads);
        for (n_rows, n_cols, tile_rows, tile_cols) in
            [(53, 7, 8, 3), (5, 9, 5, 1), (4, 4, 9, 9), (0, 3, 1, 1), (3, 0, 1, 1)]
        {
            let grid = Grid { n_rows, n_cols, tile_rows, tile_cols };
            let mut matrix = vec![0usize; n_rows * n_cols];
            pool.run(grid.n_tiles(), 1, Tiles { data: &mut matrix, grid }, |tile, mut part, _| {
                let (rows, cols) = grid.tile(tile.start);
                assert_eq!((part.n_rows(), part.n_cols()), (rows.len(), cols.len()));
                for (c, col) in cols.enumerate() {
                    for (x, row) in part.column(c).iter_mut().zip(rows.clone()) {
                        *x += 1000 * col + row + 1;
                    }
                }
            });
            let want: Vec<usize> = (0..n_cols).flat_map(|c| (0..n_rows).map(move |r| 1000 * c + r + 1)).collect();
            assert_eq!(matrix, want, "{grid:?}");
        }
    }
}

#[test]
fn outputs_of_the_wrong_size_are_refused() {
    let pool = Pool::new(2);
    let mut data = vec![0f32; 30];
    let mut refused = Vec::new();
    let mut try_out = |name: &str, run: &mut dyn FnMut(&mut [f32])| {
        let result = catch_unwind(AssertUnwindSafe(|| run(&mut data)));
        if result.is_err() {
            refused.push(name.to_owned());
        }
    };
    try_out("slice too short", &mut |d| pool.run(31, 1, &mut *d, |_, _, _| {}));
    try_out("slice too long", &mut |d| pool.run(29, 1, &mut *d, |_, _, _| {}));
    try_out("blocks", &mut |d| pool.run(4, 1, Blocks { data: d, block: 7 }, |_, _, _| {}));
    try_out("blocks overflow", &mut |d| pool.run(usize::MAX, 1, Blocks { data: d, block: 2 }, |_, _, _| {}));
    try_out("rows overlap", &mut |d| pool.run(11, 1, Rows::new(d, 10, 2), |_, _, _| {}));
    try_out("rows past the end", &mut |d| pool.run(10, 1, Rows::new(d, 11, 3), |_, _, _| {}));
    try_out("rows overflow", &mut |d| pool.run(1, 1, Rows::new(d, usize::MAX, 3), |_, _, _| {}));
    try_out("too few groups", &mut |d| pool.run(121, 4, Groups { size: 4, out: d }, |_, _, _| {}));
    try_out("groups of nothing", &mut |d| pool.run(30, 4, Groups { size: 0, out: d }, |_, _, _| {}));
    try_out("chunks within groups", &mut |d| pool.run(120, 6, Groups { size: 4, out: d }, |_, _, _| {}));
    try_out("chunks smaller than groups", &mut |d| pool.run(120, 2, Groups { size: 4, out: d }, |_, _, _| {}));
    try_out("no such column", &mut |d| pool.run(10, 1, Rows::new(d, 10, 3), |_, mut part, _| _ = part.column(3)));
    let grid = Grid { n_rows: 10, n_cols: 3, tile_rows: 4, tile_cols: 2 };
    try_out("tiles of another matrix", &mut |d| pool.run(6, 1, Tiles { data: &mut d[..29], grid }, |_, _, _| {}));
    try_out("too few tiles", &mut |d| pool.run(5, 1, Tiles { data: d, grid }, |_, _, _| {}));
    try_out("two tiles a chunk", &mut |d| pool.run(6, 2, Tiles { data: d, grid }, |_, _, _| {}));
    try_out("no such column of a tile", &mut |d| {
        pool.run(6, 1, Tiles { data: d, grid }, |_, mut part, _| _ = part.column(2));
    });
    try_out("too few runs", &mut |d| pool.run(31, 4, Runs { len: 4, out: d }, |_, _, _| {}));
    try_out("runs overflow", &mut |d| pool.run(usize::MAX, 4, Runs { len: 2, out: d }, |_, _, _| {}));
    try_out("FINE: tiles", &mut |d| pool.run(6, 1, Tiles { data: d, grid }, |_, _, _| {}));
    try_out("FINE: groups", &mut |d| pool.run(118, 8, Groups { size: 4, out: d }, |_, _, _| {}));
    try_out("FINE: rows", &mut |d| pool.run(10, 1, Rows::new(d, 10, 3), |_, _, _| {}));
    try_out("FINE: no columns", &mut |d| pool.run(10, 1, Rows::new(&mut d[..0], 10, 0), |_, _, _| {}));
    try_out("FINE: one column", &mut |d| pool.run(30, 1, Rows::new(d, 1, 1), |_, _, _| {}));
    let want = [
        "slice too short",
        "slice too long",
        "blocks",
        "blocks overflow",
        "rows overlap",
        "rows past the end",
        "rows overflow",
        "too few groups",
        "groups of nothing",
        "chunks within groups",
        "chunks smaller than groups",
        "no such column",
        "tiles of another matrix",
        "too few tiles",
        "two tiles a chunk",
        "no such column of a tile",
        "too few runs",
        "runs overflow",
    ];
    assert_eq!(refused, want);
}

#[test]
fn many_tiny_loops() {
    // 8 threads: more than most test machines have CPUs, so workers come late, park, and miss whole
    // loops.
    for (threads, loops) in [(2, 100_000), (3, 20_000), (8, 10_000)] {
        let pool = Pool::new(threads);
        let scratch = PerWorker::new(&pool, |_| 0usize);
        let mut data = [0u32; 37];
        for i in 0..loops {
            // Lives on this frame: a worker that touches it after the loop would read a later
            // value.
            let number = i as u32;
            pool.run(37, 1 + i % 5, &mut data[..], |items, part, worker| {
                *scratch.get(worker) += items.len();
                for x in part {
                    assert_eq!(*x, number);
                    *x = number + 1;
                }
            });
        }
        assert!(data.iter().all(|&x| x == loops as u32));
        assert_eq!(scratch.into_iter().sum::<usize>(), 37 * loops);
    }
}

#[test]
fn pauses_between_loops_let_workers_park_and_come_back() {
    let pool = Pool::new(3);
    let mut data = vec![0u32; 64];
    for i in 0..60 {
        thread::sleep(Duration::from_micros(i * 7));
        pool.run(64, 1, &mut data[..], |_, part, _| part[0] += 1);
    }
    assert!(data.iter().all(|&x| x == 60));
}

#[test]
fn a_stuck_worker_loses_its_share_to_others() {
    let pool = Pool::new(2);
    let owner = AtomicUsize::new(usize::MAX);
    let others = AtomicUsize::new(0);
    // Whoever runs chunk 0 stays in it until all other chunks are done: only stealing can end this
    // loop.
    pool.run(100, 1, (), |items, (), worker| {
        if items.start == 0 {
            owner.store(worker.index(), Relaxed);
            while others.load(Acquire) < 99 {
                thread::yield_now();
            }
        } else {
            others.fetch_add(1, Release);
        }
    });
    assert!(owner.load(Relaxed) < 2);
    // The same from the worker thread's end of the range.
    let done = AtomicUsize::new(0);
    pool.run(100, 1, (), |items, (), _| {
        if items.start == 99 {
            while done.load(Acquire) < 99 {
                thread::yield_now();
            }
        } else {
            done.fetch_add(1, Release);
        }
    });
    assert_eq!(done.load(Relaxed), 99);
}

#[test]
fn panics_reach_the_caller_and_the_pool_survives() {
    for threads in THREADS {
        let pool = Pool::new(threads);
        for bad in [0, 50, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, 1, (), |items, (), _| assert_ne!(items.start, bad, "chunk {bad} is bad"));
            }));
            let payload = result.expect_err("a panic was swallowed");
            let message = payload.downcast_ref::<String>().expect("a message");
            assert!(message.contains(&format!("chunk {bad} is bad")), "{message}");
        }
        // Every chunk panics.
        let all = catch_unwind(AssertUnwindSafe(|| pool.run(100, 1, (), |_, (), _| panic!("all"))));
        assert!(all.is_err());
        let mut data = [0u8; 100];
        pool.run(100, 1, &mut data[..], |_, part, _| part[0] += 1);
        assert!(data.iter().all(|&x| x == 1), "{threads} threads");
    }
}

#[test]
fn loops_in_loops_are_refused() {
    for threads in THREADS {
        let (pool, other) = (Pool::new(threads), Pool::new(2));
        for inner in [&pool, &other] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, 1, (), |_, (), _| inner.run(1, 1, (), |_, (), _| {}));
            }));
            assert!(result.is_err(), "{threads} threads");
        }
        pool.run(8, 1, (), |_, (), _| {});
    }
}

#[test]
fn callers_take_turns() {
    let pool = Pool::new(2);
    let scratch = PerWorker::new(&pool, |_| 0usize);
    let busy = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    pool.run(8, 1, (), |_, (), worker| {
                        *scratch.get(worker) += 1;
                        if worker.index() == 0 {
                            assert!(!busy.swap(true, AcqRel), "two threads are worker 0");
                            busy.store(false, Release);
                        }
                    });
                }
            });
        }
    });
    assert_eq!(scratch.into_iter().sum::<usize>(), 4 * 500 * 8);
}

#[test]
fn scratch_of_another_pool_is_refused() {
    for threads in [1, 2] {
        let (pool, other) = (Pool::new(threads), Pool::new(threads));
        let mut scratch = PerWorker::new(&other, |i| i);
        assert!(scratch.iter_mut().map(|x| *x).eq(0..threads));
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(4, 1, (), |_, (), worker| *scratch.get(worker) += 1);
        }));
        assert!(result.is_err());
    }
}

#[test]
fn pools_start_and_end() {
    for i in 0..50 {
        let pool = Pool::new(1 + i % 6);
        if i % 3 > 0 {
            pool.run(10, 1, (), |_, (), _| {});
        }
    }
}
