//! Any text as the name of a file of a split model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelembed_gguf::split::SplitName;

fuzz_target!(|file_name: &str| {
    let Some(name) = SplitName::parse(file_name) else { return };
    assert!(name.number >= 1 && name.number <= name.count);
    assert_eq!(name.sibling(name.number), file_name);
    for number in [1, name.count] {
        let sibling = name.sibling(number);
        assert!(!sibling.contains(std::path::is_separator));
        assert_eq!(SplitName::parse(&sibling), Some(SplitName { number, ..name.clone() }));
    }
});
