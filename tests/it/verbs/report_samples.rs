//! Images, the map of the features and the threshold slider of a report: what is on the page, and how it behaves in a browser.

use std::fs;
use std::path::{Path, PathBuf};

use residua::report;
use residua::samples::{ListKind, SAMPLES_FILE, SampleFile};
use serde_json::Value;

use crate::support::browser::{chromium, document_in_browser, probe};
use crate::support::program::{residua, said};

/// The demo's experiment on a few hundred images.
fn demo(root: &Path) -> PathBuf {
    let run = root.join("run");
    residua(["demo", "--tiny", "--quiet", "--device", "cpu", "--out"]).arg(&run).assert().success();
    run
}

/// Text that would do something, if it were not only text.
const HOSTILE: &str = "</script><img src=x onerror=\"problems.push('hostile')\"><b>x";

/// The demo whose classes and images are named by somebody who means harm.
fn hostile_demo(root: &Path) -> PathBuf {
    let run = demo(root);
    let path = run.join("ood").join(SAMPLES_FILE);
    let mut file = SampleFile::read(&path).unwrap();
    file.classes.iter_mut().for_each(|name| *name = HOSTILE.to_string());
    file.shown.iter_mut().for_each(|sample| {
        sample.name = Some(HOSTILE.to_string());
        sample.class = sample.class.as_ref().map(|_| HOSTILE.to_string());
    });
    file.write(&path).unwrap();
    run
}

/// Works the slider, the list of scores, a thumbnail and the map as a reader would.
const PROBE: &str = "(() => { \
    const section = document.querySelector('#images'); const q = (s) => section.querySelector(s); \
    const range = q('.slider input'), choice = q('.slider select'); \
    const set = (value) => { range.value = value; range.dispatchEvent(new Event('input')); }; \
    const flagged = () => [...section.querySelectorAll('td.flagged')].map((cell) => Number(cell.textContent)); \
    const start = flagged(); const x = () => Number(q('line.threshold').getAttribute('x1')); \
    set(0); const none = flagged(), left = x(); set(range.max); const most = flagged(), right = x(); \
    choice.selectedIndex = 1; choice.dispatchEvent(new Event('change')); const label = q('.histogram svg').getAttribute('aria-label'); \
    const ranking = q('select.ranking'); ranking.selectedIndex = 2; ranking.dispatchEvent(new Event('change')); \
    const visible = [...section.querySelectorAll('.ranked')].filter((block) => !block.hidden).map((block) => block.dataset.score); \
    const tile = section.querySelector('.ranked:not([hidden]) .tile'); const thumb = tile.querySelector('.thumb'); \
    const image = getComputedStyle(thumb).backgroundImage.slice(0, 30), side = thumb.getBoundingClientRect().width; \
    tile.click(); const dialog = document.querySelector('dialog'); \
    const terms = [...dialog.querySelectorAll('dt')].map((term) => term.textContent), modal = dialog.matches(':modal'); \
    const large = dialog.querySelector('.thumb').getBoundingClientRect().width; dialog.querySelector('button').click(); \
    const canvas = q('canvas'), box = () => canvas.getBoundingClientRect(); let hovered = 0, pictured = 0, words = ''; \
    for (let x = 0; x < box().width; x += 12) for (let y = 0; y < box().height; y += 12) { \
        canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box().left + x, clientY: box().top + y })); \
        if (!q('.hover').hidden) { hovered++; words = q('.hover').textContent; pictured += q('.hover .thumb') ? 1 : 0; } } \
    const keys = []; for (const colour of ['set', 'class', 'correct']) { \
        q('select.colour').value = colour; q('select.colour').dispatchEvent(new Event('change')); \
        keys.push([...section.querySelectorAll('.key li')].map((item) => item.textContent)); } \
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data; \
    let painted = 0; for (let i = 3; i < pixels.length; i += 4) painted += pixels[i] > 0 ? 1 : 0; \
    done({ start, none, most, left, right, label, visible, image, side, large, terms, modal, hovered, pictured, words, keys, painted, \
        scores: ranking.options[2].textContent, second: choice.options[1].textContent, \
        images: document.images.length, requests: performance.getEntriesByType('resource').length }); })();";

#[test]
fn slider_thumbnails_and_map_answer_a_reader_and_hostile_names_do_nothing() {
    let Some(browser) = chromium() else {
        println!("skipped: no Chromium on this machine (set CHROME to the path of one)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let page = report::build(&hostile_demo(root.path())).unwrap();
    for (width, dark) in [(1280, false), (390, true)] {
        let Some(found) = probe(&browser, &page, PROBE, width, dark) else { return };
        let at = format!("{width} pixels: {found}");
        assert_eq!(found["problems"], serde_json::json!([]), "{at}");
        assert!(found["scroll"].as_u64() <= found["inner"].as_u64(), "{at}");
        // Nothing is loaded, and no name became an element.
        assert_eq!((&found["images"], &found["requests"]), (&Value::from(0), &Value::from(0)), "{at}");
        let counts = |key: &str| -> Vec<u64> {
            found[key].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect()
        };
        // 96 known images, 64 of each OOD set: the slider begins where at most 5 % of the known are flagged.
        assert!(counts("start")[0] <= 4 && counts("none").iter().sum::<u64>() == 0, "{at}");
        assert!(counts("most")[0] >= 90 && counts("most").len() == 3, "{at}");
        assert!(found["left"].as_f64() < found["right"].as_f64(), "{at}");
        assert!(found["label"].as_str().unwrap().ends_with(found["second"].as_str().unwrap()), "{at}");
        assert_eq!(found["visible"], serde_json::json!([found["scores"]]), "{at}");
        assert!(found["image"].as_str().unwrap().starts_with("url(\"data:image/png;base64,"), "{at}");
        assert!(found["large"].as_f64().unwrap() > 2.0 * found["side"].as_f64().unwrap(), "{at}");
        let terms = found["terms"].as_array().unwrap();
        assert!(
            terms.len() > 15 && terms.contains(&"predicted".into()) && terms.contains(&"vim".into()),
            "{at}"
        );
        assert_eq!(found["modal"], true, "{at}");
        assert!(found["hovered"].as_u64().unwrap() > 20 && found["pictured"].as_u64().unwrap() > 0, "{at}");
        assert!(found["words"].as_str().unwrap().contains("onerror"), "{at}");
        assert_eq!(found["keys"][0].as_array().unwrap().len(), 3, "{at}");
        assert!(found["keys"][2].to_string().contains("wrong ("), "{at}");
        assert!(found["painted"].as_u64().unwrap() > 500, "{at}");
    }
}

#[test]
fn the_page_runs_its_own_script_under_its_own_policy() {
    let Some(browser) = chromium() else {
        println!("skipped: no Chromium on this machine (set CHROME to the path of one)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let page = report::build(&demo(root.path())).unwrap();
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("script-src 'sha256-") && !html.contains("script-src 'unsafe-inline'"));
    let Some(document) = document_in_browser(&browser, &page, false) else { return };
    // The script made headings into buttons and showed the slider and the map.
    assert!(document.contains("<button type=\"button\">AUROC"), "the script did not run");
    assert!(!document.contains("class=\"slider\" hidden") && !document.contains("class=\"map\" hidden"));
}

#[test]
fn the_page_of_the_demo_stays_small_and_needs_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let run = demo(root.path());
    let html = fs::read_to_string(report::build(&run).unwrap()).unwrap();
    assert!(html.len() < 6_000_000, "{} bytes", html.len());
    for part in [
        "Confident mistakes on ID test",
        "False alarms on ID test",
        "digits: most familiar, so hardest to tell",
    ] {
        assert!(html.contains(part), "{part} is not on the page");
    }
    // Without the features, the data and the images: the folder alone makes the same page.
    fs::remove_dir_all(run.join("features")).unwrap();
    assert_eq!(fs::read_to_string(report::build(&run).unwrap()).unwrap(), html);
}

#[test]
fn ood_keeps_images_of_the_data_that_its_caches_name() {
    let root = tempfile::tempdir().unwrap();
    let run = demo(root.path());
    let cache = |name: &str| {
        let folder = root.path().join(name).display().to_string();
        let data = match name {
            "id" => "demo:fashion-mnist?split=test,sample=90",
            _ => "demo:digits?sample=50",
        };
        residua(["extract", "--quiet", "--device", "cpu", "--data", data, "--out", &folder, "--checkpoint"])
            .arg(&run)
            .assert()
            .success();
        folder
    };
    let (id, digits) = (cache("id"), format!("digits={}", cache("digits")));
    let score = |out: &str, more: &[&str]| {
        let out = root.path().join(out);
        let arguments = ["ood", "--id", &id, "--ood", &digits, "--methods", "msp,energy", "--out"];
        residua(arguments).arg(&out).args(more).assert().success();
        SampleFile::read(&out.join(SAMPLES_FILE)).unwrap()
    };
    let file = score("scores", &[]);
    assert_eq!(file.classes[0], "T-shirt/top");
    assert!(file.sets.iter().all(|set| set.absent.is_none()) && file.thumbnails.len() > 50);
    assert!(file.shown.iter().all(|sample| sample.label.is_some() == (sample.set == 0)));
    let kinds = |kind: ListKind| file.lists.iter().filter(|list| list.kind == kind).count();
    assert_eq!([kinds(ListKind::MostFamiliar), kinds(ListKind::FalseAlarms)], [4, 1]);
    let few = score("few", &["--thumbnails", "7"]);
    assert_eq!(few.thumbnails.len(), 7);
    let none = score("none", &["--thumbnails", "0"]);
    assert!(none.thumbnails.is_empty() && none.sets[0].absent.as_deref() == Some("none were asked for"));
    // A cache that says nothing of its data, as those of other programs: the page says so.
    fs::write(Path::new(&id).join("meta.json"), "{}").unwrap();
    let unnamed = score("unnamed", &[]);
    assert!(unnamed.sets[0].absent.as_ref().unwrap().contains("does not say which images"));
    let (code, text) = said(&["report", &root.path().join("unnamed").display().to_string()]);
    assert_eq!(code, Some(0), "{text}");
    let html = fs::read_to_string(root.path().join("unnamed/report.html")).unwrap();
    assert!(html.contains("no images, since") && html.contains("class=\"slider\""));
}
