use std::path::Path;
use std::process::Command;

use sipguard_common::Cause;

use super::*;

/// What normal, red-blind, green-blind and blue-blind eyes make of linear red, green and blue (Machado, Oliveira and Fernandes 2009, severity 1).
const EYES: [(&str, [[f64; 3]; 3]); 4] = [
    ("normal", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    (
        "red-blind",
        [
            [0.152_286, 1.052_583, -0.204_868],
            [0.114_503, 0.786_281, 0.099_216],
            [-0.003_882, -0.048_116, 1.051_998],
        ],
    ),
    (
        "green-blind",
        [
            [0.367_322, 0.860_646, -0.227_968],
            [0.280_085, 0.672_501, 0.047_413],
            [-0.011_820, 0.042_940, 0.968_881],
        ],
    ),
    (
        "blue-blind",
        [
            [1.255_528, -0.076_749, -0.178_779],
            [-0.078_411, 0.930_809, 0.147_602],
            [0.004_733, 0.691_367, 0.303_900],
        ],
    ),
];

/// A colour of the style sheet in linear red, green and blue. `dark` takes its second definition.
fn colour(name: &str, dark: bool) -> [f64; 3] {
    let sheet = include_str!("dashboard.css");
    let begin = format!("--{name}: #");
    let mut found = sheet.match_indices(&begin).map(|(at, begin)| &sheet[at + begin.len()..]);
    let text = if dark { found.nth(1) } else { found.next() };
    let digits = text.and_then(|text| text.get(..text.find(';')?)).unwrap_or_else(|| panic!("no --{name}"));
    let digits = if digits.len() == 3 {
        digits.chars().flat_map(|one| [one, one]).collect()
    } else {
        digits.to_owned()
    };
    [0, 2, 4].map(|at| {
        let part = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    })
}

fn seen([red, green, blue]: [f64; 3], eye: &[[f64; 3]; 3]) -> [f64; 3] {
    eye.map(|[r, g, b]| (r * red + g * green + b * blue).clamp(0.0, 1.0))
}

fn luminance([red, green, blue]: [f64; 3]) -> f64 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// CIE 1976 L*a*b* under D65.
fn lab(rgb: [f64; 3]) -> [f64; 3] {
    let [red, green, blue] = rgb;
    let curve = |t: f64| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
    let x = curve((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.950_47);
    let y = curve(luminance(rgb));
    let z = curve((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.088_83);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

fn distance(one: [f64; 3], other: [f64; 3]) -> f64 {
    one.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn every_eye_tells_the_colours_of_the_causes_apart() {
    for dark in [false, true] {
        let ground = luminance(colour("card", dark));
        let colours = Cause::ALL.map(|cause| (cause.name(), colour(cause.name(), dark)));
        for (at, (name, one)) in colours.iter().enumerate() {
            let (low, high) = (ground.min(luminance(*one)), ground.max(luminance(*one)));
            let contrast = (high + 0.05) / (low + 0.05);
            assert!(contrast >= 3.0, "{name}, dark {dark}: contrast {contrast:.2}");
            for (other_name, other) in &colours[..at] {
                for (eye, matrix) in &EYES {
                    let apart = distance(lab(seen(*one, matrix)), lab(seen(*other, matrix)));
                    assert!(apart >= 20.0, "{name} and {other_name}, {eye}, dark {dark}: {apart:.1}");
                }
            }
        }
    }
}

#[test]
fn the_page_knows_every_cause() {
    let list: Vec<String> = Cause::ALL.iter().map(|cause| format!("\"{}\"", cause.name())).collect();
    let list = format!("CAUSES = [{}]", list.join(", "));
    assert!(include_str!("plot.js").contains(&list), "{list}");
    for cause in Cause::ALL {
        let class = format!(".swatch.{0} {{ background: var(--{0}); }}", cause.name());
        assert!(include_str!("dashboard.css").contains(&class), "{class}");
    }
}

#[test]
fn the_plot_library_is_what_its_text_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard/uplot");
    let checked = Command::new("sha256sum")
        .args(["--strict", "--check", "SHA256SUMS"])
        .current_dir(directory)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && told.matches(": OK").count() == 3, "{told}");
    let text = include_str!("uplot/README.md");
    let (_, version) = include_str!("uplot/uPlot.iife.min.js").split_once("(v").unwrap();
    let (version, _) = version.split_once(')').unwrap();
    for named in
        [format!("uPlot {version} "), format!("npm pack uplot@{version}\n"), format!("uplot-{version}.tgz")]
    {
        assert!(text.contains(&named), "{named}");
    }
}

#[test]
fn nothing_is_put_into_the_page_as_markup_and_nothing_is_fetched_from_elsewhere() {
    for (path, _, text) in FILES {
        if path.starts_with("/uplot") {
            continue;
        }
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "//cdn",
            "https:",
            "style=\"",
        ] {
            assert!(!text.contains(word), "{path}: {word}");
        }
    }
}
