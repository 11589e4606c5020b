//! Prints how fast this machine reads memory:
//! `cargo run --release -p modelembed --example bandwidth -- [threads]`

fn main() {
    let threads = std::env::args().nth(1).map_or(1, |n| n.parse().expect("a number of threads"));
    match modelembed::ReadBandwidth::measure(threads) {
        Some(found) => println!("{:.2} GB/s with {} threads", found.bytes_per_second / 1e9, found.threads),
        None => println!("too little memory is available"),
    }
}
