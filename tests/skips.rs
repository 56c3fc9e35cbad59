//! The closing summary of `cargo test`: which tests were skipped, and what to install.
//!
//! A target of its own without the standard harness, so that it runs after the others and whatever the filter. It ends with
//! the standard runner's closing line. nextest runs it last and shows it, by `.config/nextest.toml`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "this is a test, and its output is its purpose"
)]

#[path = "it/support/skips.rs"]
mod skips;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        // nextest asks twice, and the second time for the ignored ones.
        if !has("--ignored") {
            println!("what_was_skipped: test");
        }
        return;
    }
    println!("\nrunning 1 test");
    println!("test what_was_skipped ... ok\n");
    let summary = skips::summary(&skips::take(skips::runner()));
    if !summary.is_empty() {
        println!("{summary}");
    }
    println!(
        "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
    );
}
