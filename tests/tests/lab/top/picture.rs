//! A screen as text and as a picture, to be looked at.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use vt100::{Color, Screen};

const WIDTH: u32 = 9;
const HEIGHT: u32 = 18;

/// Writes the screen into the directory of `SIPGUARD_SCREENSHOTS`, or of the tests: as text, on dark ground and on light ground.
pub fn keep(screen: &Screen, name: &str) -> Result<()> {
    let directory = std::env::var_os("SIPGUARD_SCREENSHOTS")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&directory).context("making the directory of screenshots")?;
    for (end, content) in [
        ("txt", screen.contents() + "\n"),
        ("dark.svg", svg(screen, ["#000000", "#d0d0d0"])),
        ("light.svg", svg(screen, ["#ffffff", "#202020"])),
    ] {
        let path = directory.join(format!("{name}.{end}"));
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// How large a picture of so many columns and rows is.
#[must_use]
pub fn pixels((columns, rows): (u16, u16)) -> (u32, u32) {
    (u32::from(columns) * WIDTH, u32::from(rows) * HEIGHT)
}

/// The screen as SVG; `ground` and `ink` are those of the terminal.
pub fn svg(screen: &Screen, [ground, ink]: [&str; 2]) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = pixels((columns, rows));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"DejaVu Sans Mono, monospace\" font-size=\"15\">\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>\n"
    );
    for row in 0..rows {
        for column in 0..columns {
            let Some(cell) = screen.cell(row, column) else { continue };
            let (x, y) = (u32::from(column) * WIDTH, u32::from(row) * HEIGHT);
            let colours = [colour(cell.bgcolor(), ground), colour(cell.fgcolor(), ink)];
            let [behind, before] = if cell.inverse() { [colours[1], colours[0]] } else { colours };
            if behind != ground {
                let _never = writeln!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"{behind}\"/>"
                );
            }
            if cell.underline() {
                let y = y + HEIGHT - 1;
                let _never = writeln!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"1\" fill=\"{before}\"/>"
                );
            }
            let text = cell.contents().replace('&', "&amp;").replace('<', "&lt;");
            if !text.trim().is_empty() {
                let weight = if cell.bold() { " font-weight=\"bold\"" } else { "" };
                let y = y + 14;
                let _never =
                    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{before}\"{weight}>{text}</text>");
            }
        }
    }
    svg + "</svg>\n"
}

/// xterm's colours, as far as they are used.
fn colour(colour: Color, default: &str) -> &str {
    match colour {
        Color::Idx(1) => "#cd0000",
        Color::Idx(5) => "#cd00cd",
        Color::Default | Color::Idx(_) | Color::Rgb(..) => default,
    }
}
