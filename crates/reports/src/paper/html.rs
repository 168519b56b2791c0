//! A report as one HTML page: no script, nothing loaded from elsewhere, readable on a screen, dark or light, and in print.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Bar, Block, Cell, Paper};

/// Colours have a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), and no meaning rests on them alone.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1a2230; --soft: #4c5667; --line: #c9d0da; --bar: #2f6f9f; --paper: #ffffff;
  --gap: #9c1c1c; --good: #1d6b3a }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf2; --soft: #a9b4c4; --line: #3a4454; --bar: #6fb1de;
  --paper: #12161d; --gap: #ff9a8f; --good: #7fd69b } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1.25rem }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 } h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem }
.sub { color: var(--soft); margin: .25rem 0 1.5rem }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--soft); font-weight: 600 } .n { text-align: right }
figure { margin: .75rem 0 } figcaption { color: var(--soft); margin-bottom: .35rem }
.bars { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr max-content; gap: .3rem .75rem; align-items: center }
.bars i { display: block; height: .85rem; background: var(--bar); min-width: 1px; print-color-adjust: exact; -webkit-print-color-adjust: exact }
.item { border-bottom: 1px solid var(--line); padding: .75rem 0; break-inside: avoid }
.item b { display: inline-block } .item p { margin: .2rem 0 } .status { float: right; margin-left: 1rem; font-weight: 600 }
.gap { color: var(--gap) } .enforced, .evidenced { color: var(--good) }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }
@media print { :root { --ink: #000; --soft: #333; --line: #999; --paper: #fff; --bar: #555; --gap: #000; --good: #000 }
  body { margin: 0; max-width: none; font-size: 10.5pt } h2 { break-after: avoid } tr, figure { break-inside: avoid } }
";

/// Writes the page.
pub fn write(paper: &Paper) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (paper.title) " - " (paper.subtitle) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (paper.title) }
                    p.sub { (paper.subtitle) }
                    @for block in &paper.blocks { (write_block(block)) }
                }
                footer {
                    @for source in &paper.sources { p { (source) } }
                }
            }
        }
    };
    page.into_string()
}

fn write_block(block: &Block) -> Markup {
    match block {
        Block::Heading { text } => html! { h2 { (text) } },
        Block::Text { text } => html! { p { (text) } },
        Block::Table { heads, rows } => {
            let is_number =
                |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|c| c.is_number));
            html! {
                table {
                    thead { tr { @for (i, head) in heads.iter().enumerate() {
                        th scope="col" class=[is_number(i).then_some("n")] { (head) }
                    } } }
                    tbody { @for row in rows { tr { @for cell in row { (write_cell(cell)) } } } }
                }
            }
        }
        Block::Bars { caption, bars } => {
            let longest = bars.iter().map(|bar| bar.length).max().unwrap_or(0).max(1);
            html! {
                figure {
                    figcaption { (caption) }
                    div.bars { @for bar in bars {
                        span { (bar.label) }
                        i style=(format!("width: {}%", percent(bar, longest))) {}
                        span.n title=[bar.cell.figure.as_ref()] { (bar.cell.text) }
                    } }
                }
            }
        }
        Block::Item { section, asks, status, found } => {
            let class = status.word().to_lowercase().replace(' ', "-");
            html! {
                section.item {
                    span.status.(class) { (status.word()) }
                    b { (section) } " " (asks)
                    p { (found) }
                }
            }
        }
    }
}

fn percent(bar: &Bar, longest: u64) -> u64 {
    bar.length.saturating_mul(100) / longest
}

fn write_cell(cell: &Cell) -> Markup {
    html! { td class=[cell.is_number.then_some("n")] title=[cell.figure.as_ref()] { (cell.text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_wrote_is_text_and_never_markup() {
        let paper = Paper {
            title: "<script>".into(),
            subtitle: "a".into(),
            sources: vec!["\"><img src=x>".into()],
            blocks: vec![
                Block::text("<b>"),
                Block::Table { heads: vec!["<i>".into()], rows: vec![vec![Cell::word("&<")]] },
            ],
        };
        let page = write(&paper);
        for raw in ["<script>", "<img", "<b>", "<i>", "&<"] {
            assert!(!page.contains(raw), "{raw}");
        }
        assert!(page.contains("&lt;script&gt;") && !page.contains("http://") && !page.contains("https://"));
    }
}
