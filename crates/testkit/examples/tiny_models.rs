//! Writes every tiny model to a folder as NAME.gguf:
//! `cargo run -p modelembed-testkit --example tiny_models -- DIR`.

use std::{fs, io, path::PathBuf};

use modelembed_testkit::{tiny, tiny_prompt, tiny_specs};

fn main() -> io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("usage: tiny_models DIR"));
    };
    fs::create_dir_all(&dir)?;
    for spec in tiny_specs() {
        fs::write(dir.join(format!("{}.gguf", spec.name)), tiny(&spec))?;
    }
    let ids: Vec<String> = tiny_prompt(600).iter().map(u32::to_string).collect();
    fs::write(dir.join("prompt.txt"), ids.join(" "))
}
