//! The picture of a comparison: two groups of bars, time and memory, as SVG.

use super::cost::Row;
use std::fmt::Write;

const LABEL_WIDTH: f64 = 110.0;
const BAR_WIDTH: f64 = 420.0;
const VALUE_WIDTH: f64 = 150.0;
const BAR_HEIGHT: f64 = 18.0;
const STEP: f64 = 26.0;

/// A group of bars, each of two parts that lie behind one another.
struct Group<'a> {
    title: &'a str,
    /// Names and colours of the two parts.
    parts: [(&'a str, &'a str); 2],
    unit: &'a str,
    bars: Vec<(String, [f64; 2])>,
}

/// Draws what the rows hold; rows without figures are left out.
pub fn svg(title: &str, rows: &[Row]) -> String {
    let mut groups = [
        Group {
            title: "Time until the first token",
            parts: [("load", "#4c78a8"), ("first token", "#9ecae9")],
            unit: "ms",
            bars: Vec::new(),
        },
        Group {
            title: "Memory",
            parts: [("private", "#e45756"), ("shared with other processes", "#b5cf6b")],
            unit: "MB",
            bars: Vec::new(),
        },
    ];
    let mb = |bytes: Option<u64>| bytes.unwrap_or(0) as f64 / 1024.0 / 1024.0;
    for row in rows {
        let Ok(f) = &row.result else { continue };
        let label = format!("{}, {}", row.mode.name(), if row.is_cold { "cold" } else { "warm" });
        groups[0].bars.push((label.clone(), [f.load_ms, f.first_token_ms]));
        groups[1].bars.push((label, [mb(f.private_bytes), mb(f.shared_bytes)]));
    }
    let width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH;
    let mut body = String::new();
    let mut y = 28.0;
    let _ = writeln!(body, r#"<text x="10" y="{y}" font-weight="bold">{}</text>"#, escaped(title));
    for group in &groups {
        y = draw(&mut body, group, y + 34.0);
    }
    let height = y + 6.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// Draws a group with its title at `y`; returns where it ends.
fn draw(out: &mut String, group: &Group, mut y: f64) -> f64 {
    let _ = writeln!(out, r#"<text x="10" y="{y}">{} ({})</text>"#, group.title, group.unit);
    let mut x = LABEL_WIDTH + 160.0;
    for (name, colour) in group.parts {
        let _ = writeln!(out, r#"<rect x="{x}" y="{}" width="11" height="11" fill="{colour}"/>"#, y - 10.0);
        let _ = writeln!(out, r#"<text x="{}" y="{y}" font-size="12">{name}</text>"#, x + 16.0);
        x += 110.0;
    }
    y += 12.0;
    let longest = group.bars.iter().map(|(_, parts)| parts[0] + parts[1]).fold(0.0, f64::max);
    let scale = if longest > 0.0 { BAR_WIDTH / longest } else { 0.0 };
    for (label, parts) in &group.bars {
        let text_y = y + BAR_HEIGHT - 5.0;
        let _ = writeln!(out, r#"<text x="{}" y="{text_y}" text-anchor="end">{label}</text>"#, LABEL_WIDTH - 8.0);
        let mut x = LABEL_WIDTH;
        for (part, (_, colour)) in parts.iter().zip(group.parts) {
            let w = part * scale;
            let _ = writeln!(out, r#"<rect x="{x:.1}" y="{y}" width="{w:.1}" height="{BAR_HEIGHT}" fill="{colour}"/>"#);
            x += w;
        }
        let _ = writeln!(
            out,
            r#"<text x="{:.1}" y="{text_y}" font-size="12">{} + {}</text>"#,
            x + 6.0,
            short(parts[0]),
            short(parts[1])
        );
        y += STEP;
    }
    y
}

/// Three digits are enough.
fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn escaped(text: &str) -> String {
    let text = modelembed_text::printable(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::cost::Figures;
    use crate::resolve::Mode;

    fn row(mode: Mode, load_ms: f64, result_ok: bool) -> Row {
        let figures = Figures { load_ms, first_token_ms: 10.0, private_bytes: Some(1 << 20), ..Figures::default() };
        Row { mode, is_cold: true, result: if result_ok { Ok(figures) } else { Err("x".into()) } }
    }

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let svg = svg("a <model> & more", &[row(Mode::Map, 10.0, true), row(Mode::File, 30.0, true)]);
        assert!(svg.contains("a &lt;model&gt; &amp; more"), "{svg}");
        // 40 ms are the longest bar: 30 of them three quarters of the width.
        assert!(svg.contains(r#"width="315.0""#) && svg.contains("30.0 + 10.0"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_is_no_failure() {
        let svg = svg("m", &[row(Mode::Buffer, 1.0, false)]);
        assert!(!svg.contains("buffer") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
