//! A report as PDF: A4 pages of text, tables, bars and checklists, in the fonts that every reader has.

use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str, TextStr};

use super::metrics::{encode, width};
use super::{Bar, Block, Cell, Paper, Status};

const PAGE: (f32, f32) = (595.0, 842.0);
const MARGIN: f32 = 50.0;
const WIDTH: f32 = PAGE.0 - 2.0 * MARGIN;
const SIZE: f32 = 9.5;
const LEADING: f32 = 1.35;

/// A page in the making.
struct Page {
    content: Content,
    /// How far down, in points from the bottom.
    y: f32,
}

struct Writer {
    pages: Vec<Content>,
    page: Page,
}

impl Writer {
    fn new_page() -> Page {
        Page { content: Content::new(), y: PAGE.1 - MARGIN }
    }

    /// Makes sure that so much room is left.
    fn room(&mut self, height: f32) {
        if self.page.y - height < MARGIN + 20.0 {
            let full = std::mem::replace(&mut self.page, Self::new_page());
            self.pages.push(full.content);
        }
    }

    fn put(&mut self, x: f32, y: f32, text: &[u8], size: f32, is_bold: bool) {
        let font = if is_bold { Name(b"B") } else { Name(b"R") };
        let content = &mut self.page.content;
        content.begin_text().set_font(font, size).next_line(x, y).show(Str(text)).end_text();
    }

    /// A paragraph.
    fn text(&mut self, text: &str, size: f32, is_bold: bool, grey: f32) {
        for line in wrap(text, WIDTH, size, is_bold) {
            self.room(size * LEADING);
            self.page.y -= size * LEADING;
            self.page.content.set_fill_gray(grey);
            let y = self.page.y;
            self.put(MARGIN, y, &line, size, is_bold);
        }
        self.page.content.set_fill_gray(0.0);
    }

    fn gap(&mut self, height: f32) {
        self.page.y -= height;
    }

    fn rule(&mut self) {
        let y = self.page.y - 3.0;
        let content = &mut self.page.content;
        content
            .set_stroke_gray(0.7)
            .set_line_width(0.5)
            .move_to(MARGIN, y)
            .line_to(MARGIN + WIDTH, y)
            .stroke();
        self.page.y = y;
    }

    fn row(&mut self, cells: &[(Vec<Vec<u8>>, bool)], widths: &[f32], is_bold: bool) {
        let lines = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or(1);
        #[allow(clippy::cast_precision_loss, reason = "a few lines")]
        self.room(lines as f32 * SIZE * LEADING + 4.0);
        let top = self.page.y;
        let mut lowest = top;
        let mut x = MARGIN;
        for ((lines, is_number), wide) in cells.iter().zip(widths) {
            let mut y = top;
            for line in lines {
                y -= SIZE * LEADING;
                let start = if *is_number { x + wide - 8.0 - width(line, SIZE, is_bold) } else { x };
                self.put(start, y, line, SIZE, is_bold);
            }
            lowest = lowest.min(y);
            x += wide;
        }
        self.page.y = lowest;
        self.rule();
    }

    fn table(&mut self, heads: &[String], rows: &[Vec<Cell>]) {
        let columns = heads.len().max(1);
        let widest = |measure: &dyn Fn(&str, bool) -> f32| -> Vec<f32> {
            let of = |i: usize| {
                let head = heads.get(i).map_or(0.0, |h| measure(h, true));
                let cells = rows.iter().filter_map(|row| row.get(i)).map(|c| measure(&c.text, false));
                cells.fold(head, f32::max) + 14.0
            };
            (0..columns).map(of).collect()
        };
        let whole = |text: &str, is_bold: bool| width(&bytes(text), SIZE, is_bold);
        let word = |text: &str, is_bold: bool| {
            text.split_whitespace().map(|word| whole(word, is_bold)).fold(0.0, f32::max).min(160.0)
        };
        let widths = fit(&widest(&whole), &widest(&word));
        let is_number = |i: usize| rows.iter().any(|row| row.get(i).is_some_and(|c| c.is_number));
        let head: Vec<_> = heads
            .iter()
            .enumerate()
            .map(|(i, h)| (wrap(h, widths[i] - 10.0, SIZE, true), is_number(i)))
            .collect();
        self.row(&head, &widths, true);
        for row in rows {
            let cells: Vec<_> = row
                .iter()
                .enumerate()
                .map(|(i, c)| {
                    (wrap(&c.text, widths.get(i).map_or(60.0, |w| w - 10.0), SIZE, false), c.is_number)
                })
                .collect();
            self.row(&cells, &widths, false);
        }
        self.gap(8.0);
    }

    fn bars(&mut self, caption: &str, bars: &[Bar]) {
        self.text(caption, SIZE, false, 0.3);
        let longest = bars.iter().map(|bar| bar.length).max().unwrap_or(0).max(1);
        let labels: Vec<Vec<u8>> = bars.iter().map(|bar| bytes(&bar.label)).collect();
        let label = labels.iter().map(|l| width(l, SIZE, false)).fold(40.0, f32::max).min(190.0) + 10.0;
        for (bar, name) in bars.iter().zip(&labels) {
            self.room(16.0);
            self.page.y -= 15.0;
            let y = self.page.y;
            let name = wrap(&String::from_utf8_lossy(name), label - 6.0, SIZE, false).into_iter().next();
            self.put(MARGIN, y, &name.unwrap_or_default(), SIZE, false);
            let number = bytes(&bar.cell.text);
            let room = WIDTH - label - width(&number, SIZE, false) - 12.0;
            #[allow(clippy::cast_precision_loss, reason = "a length on paper")]
            let long = (bar.length as f32 / longest as f32 * room).max(0.5);
            let content = &mut self.page.content;
            content
                .set_fill_gray(0.35)
                .rect(MARGIN + label, y - 1.0, long, 9.0)
                .fill_nonzero()
                .set_fill_gray(0.0);
            self.put(MARGIN + label + long + 6.0, y, &number, SIZE, false);
        }
        self.gap(10.0);
    }

    fn item(&mut self, section: &str, asks: &str, status: Status, found: &str) {
        let word = bytes(status.word());
        let wide = width(&word, SIZE, true);
        let title = wrap(&format!("{section}  {asks}"), WIDTH - wide - 20.0, SIZE, true);
        #[allow(clippy::cast_precision_loss, reason = "a few lines")]
        self.room((title.len() as f32 + 2.0) * SIZE * LEADING + 10.0);
        for (i, line) in title.iter().enumerate() {
            self.page.y -= SIZE * LEADING;
            let y = self.page.y;
            if i == 0 {
                self.put(MARGIN + WIDTH - wide, y, &word, SIZE, true);
            }
            self.put(MARGIN, y, line, SIZE, true);
        }
        self.text(found, SIZE, false, 0.15);
        self.rule();
        self.gap(3.0);
    }
}

/// Widths of columns that fit the page: each has room for its longest word, if all have, and what it needs beyond that is shared.
fn fit(natural: &[f32], words: &[f32]) -> Vec<f32> {
    let sum = |widths: &[f32]| widths.iter().sum::<f32>();
    if sum(natural) <= WIDTH {
        return natural.to_vec();
    }
    let least = sum(words);
    if least > WIDTH {
        return words.iter().map(|w| w * WIDTH / least).collect();
    }
    let share = (WIDTH - least) / (sum(natural) - least).max(1.0);
    natural.iter().zip(words).map(|(natural, word)| word + (natural - word) * share).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(encode).collect()
}

/// Lines that fit; a word that does not is broken.
fn wrap(text: &str, wide: f32, size: f32, is_bold: bool) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut line: Vec<u8> = Vec::new();
    for word in text.split_whitespace() {
        let mut word = bytes(word);
        loop {
            let mut longer = line.clone();
            if !longer.is_empty() {
                longer.push(b' ');
            }
            longer.extend_from_slice(&word);
            if width(&longer, size, is_bold) <= wide {
                line = longer;
                break;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
                continue;
            }
            let fits =
                (1..=word.len()).rev().find(|n| width(&word[..*n], size, is_bold) <= wide).unwrap_or(1);
            let rest = word.split_off(fits);
            lines.push(std::mem::replace(&mut word, rest));
            if word.is_empty() {
                break;
            }
        }
    }
    lines.push(line);
    lines
}

/// Writes the file.
pub fn write(paper: &Paper) -> Vec<u8> {
    let mut writer = Writer { pages: Vec::new(), page: Writer::new_page() };
    writer.text(&paper.title, 18.0, true, 0.0);
    writer.gap(2.0);
    writer.text(&paper.subtitle, 11.0, false, 0.3);
    writer.gap(12.0);
    for block in &paper.blocks {
        match block {
            Block::Heading { text } => {
                writer.room(60.0);
                writer.gap(12.0);
                writer.text(text, 12.5, true, 0.0);
                writer.gap(3.0);
            }
            Block::Text { text } => {
                writer.text(text, SIZE, false, 0.0);
                writer.gap(6.0);
            }
            Block::Table { heads, rows } => writer.table(heads, rows),
            Block::Bars { caption, bars } => writer.bars(caption, bars),
            Block::Item { section, asks, status, found } => writer.item(section, asks, *status, found),
        }
    }
    writer.gap(14.0);
    writer.rule();
    for source in &paper.sources {
        writer.text(source, 8.0, false, 0.3);
    }
    writer.pages.push(writer.page.content);
    assemble(paper, writer.pages)
}

fn assemble(paper: &Paper, pages: Vec<Content>) -> Vec<u8> {
    let mut next = 0;
    let mut reference = || {
        next += 1;
        Ref::new(next)
    };
    let (catalog, tree, regular, bold, info) =
        (reference(), reference(), reference(), reference(), reference());
    let mut pdf = Pdf::new();
    let mut root = pdf.catalog(catalog);
    root.pages(tree).lang(TextStr("en"));
    root.finish();
    pdf.document_info(info).title(TextStr(&paper.title)).producer(TextStr("Ringfence"));
    for (font, name) in [(regular, "Helvetica"), (bold, "Helvetica-Bold")] {
        let mut font = pdf.type1_font(font);
        font.base_font(Name(name.as_bytes()));
        font.encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    let count = pages.len();
    let mut kids = Vec::new();
    for (number, mut content) in pages.into_iter().enumerate() {
        let (page, stream) = (reference(), reference());
        kids.push(page);
        let foot = bytes(&format!("{} – {} of {count}", paper.title, number + 1));
        content.set_fill_gray(0.3).begin_text().set_font(Name(b"R"), 8.0).next_line(MARGIN, 30.0);
        content.show(Str(&foot)).end_text();
        pdf.stream(stream, &content.finish());
        let mut page = pdf.page(page);
        page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(tree).contents(stream);
        let mut resources = page.resources();
        let mut fonts = resources.fonts();
        fonts.pair(Name(b"R"), regular).pair(Name(b"B"), bold);
    }
    let count = i32::try_from(kids.len()).unwrap_or(i32::MAX);
    pdf.pages(tree).kids(kids).count(count);
    pdf.finish()
}
