//! `{% generation %}` ... `{% endgeneration %}`: marks of the assistant's words that `transformers`
//! uses to build training masks. They print nothing, but an engine that does not know them refuses
//! the whole template.

/// Turns the tags of generation blocks into those of an empty `with` block, which is a scope of its
/// own just as transformers' block is. Text, expressions, comments and raw blocks are left alone;
/// lines keep their numbers.
pub(super) fn rewrite(source: String) -> String {
    if !source.contains("generation") {
        return source;
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut in_raw = false;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let len_bytes = match tag.as_bytes().get(1) {
            Some(b'%') => {
                let len_bytes = tag_len(tag, "%}");
                let (tag, word) = (&tag[..len_bytes], word_of(&tag[..len_bytes]));
                match word {
                    "raw" => in_raw = true,
                    "endraw" => in_raw = false,
                    _ => {}
                }
                match word {
                    "generation" if !in_raw => out.push_str(&tag.replacen("generation", "with", 1)),
                    "endgeneration" if !in_raw => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
                    _ => out.push_str(tag),
                }
                rest = &rest[at + len_bytes..];
                continue;
            }
            _ if in_raw => 1,
            Some(b'{') => tag_len(tag, "}}"),
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            _ => 1,
        };
        out.push_str(&tag[..len_bytes]);
        rest = &tag[len_bytes..];
    }
    out.push_str(rest);
    out
}

/// The length of the tag that `text` begins with, through `end`; quoted strings inside do not end
/// it.
fn tag_len(text: &str, end: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(end.as_bytes()) => return at + end.len(),
            (None, _) => {}
        }
        at += 1;
    }
    text.len()
}

/// The first word of a block tag, between the delimiters and their whitespace marks.
fn word_of(tag: &str) -> &str {
    let inner = tag[2..].strip_suffix("%}").unwrap_or("");
    inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+')
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn only_real_tags_are_rewritten() {
        let rows = [
            ("{% generation %}x{% endgeneration %}", "{% with %}x{% endwith %}"),
            ("{%- generation -%}x{%-endgeneration+%}", "{%- with -%}x{%-endwith+%}"),
            ("{{ '{% generation %}' }} generation", "{{ '{% generation %}' }} generation"),
            ("{# {% generation %} #}{% if x %}", "{# {% generation %} #}{% if x %}"),
            ("{% raw %}{% generation %}{{{% endraw %}", "{% raw %}{% generation %}{{{% endraw %}"),
            ("{% set a = '%}generation' %}{% generation", "{% set a = '%}generation' %}{% generation"),
            ("{ generation {", "{ generation {"),
            ("{{ generation", "{{ generation"),
            ("ü{% generation %}ß", "ü{% with %}ß"),
            ("{% '\\ü generation", "{% '\\ü generation"),
        ];
        let failed: Vec<_> =
            rows.iter().map(|(from, to)| (from, to, rewrite(from.to_string()))).filter(|r| r.1 != &r.2).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
