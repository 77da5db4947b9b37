//! Pages in headless Chromium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A Chromium on this machine: `$CHROME`, or the usual names.
pub fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("CHROME").map(PathBuf::from);
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let usual = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let found = folders.iter().flat_map(|folder| usual.map(|name| folder.join(name)));
    named.into_iter().chain(found).find(|path| path.is_file())
}

/// The document after its scripts ran, or `None` (with the reason printed) where the browser does not come up.
pub fn document_in_browser(browser: &Path, page: &Path, dark: bool) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("dom.html");
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .args(["--window-size=1400,1000", "--virtual-time-budget=10000"])
        .arg(format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }))
        .arg(format!("file://{}", page.display()))
        .stdout(fs::File::create(&output).unwrap())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let give_up = Instant::now() + Duration::from_secs(120);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > give_up {
            let _ = child.kill();
            let _ = child.wait();
            println!("skipped: {} did not finish", browser.display());
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(fs::read_to_string(&output).unwrap())
}

/// What a script that runs in a page finds, or `None` where no browser comes up. The script calls `done(RESULT)`; errors, warnings and
/// blocked requests are in `RESULT.problems`. The page is shown in a frame, since a window is never narrower than 500 pixels.
pub fn probe(browser: &Path, page: &Path, script: &str, width: u32, dark: bool) -> Option<serde_json::Value> {
    let folder = page.parent().unwrap();
    let html = fs::read_to_string(page).unwrap();
    // The page's policy names the one script that may run; the probe needs a policy of its own.
    let (start, end) = {
        let start = html.find("script-src ").expect("a content security policy") + "script-src ".len();
        (start, start + html[start..].find(';').unwrap())
    };
    let html = format!("{}'unsafe-inline'{}", &html[..start], &html[end..]);
    let before = "<script>window.problems = []; \
        addEventListener('error', (e) => problems.push(String(e.message))); \
        addEventListener('securitypolicyviolation', (e) => problems.push('blocked ' + e.violatedDirective)); \
        console.error = console.warn = (...all) => problems.push(all.join(' ')); \
        const done = (result) => parent.postMessage(JSON.stringify({ problems, inner: innerWidth, \
            scroll: document.documentElement.scrollWidth, ...result }).replaceAll('<', '\\\\u003c'), '*');</script>";
    let html = html.replacen("<meta charset=\"utf-8\">", &format!("<meta charset=\"utf-8\">{before}"), 1);
    let html = html.replacen("</body>", &format!("<script>{script}</script></body>"), 1);
    fs::write(folder.join("probed.html"), html).unwrap();
    let host = folder.join("host.html");
    fs::write(
        &host,
        format!(
            "<!doctype html><meta name='color-scheme' content='light dark'><script> \
             addEventListener('message', (event) => {{ const result = document.createElement('script'); \
                 result.type = 'application/json'; result.id = 'result'; result.textContent = event.data; \
                 document.documentElement.append(result); }});</script> \
             <iframe src='probed.html' style='width:{width}px;height:900px;border:0'></iframe>"
        ),
    )
    .unwrap();
    let document = document_in_browser(browser, &host, dark)?;
    let start = document.find("id=\"result\">").expect("the probe wrote no result") + "id=\"result\">".len();
    let json = &document[start..start + document[start..].find("</script>").unwrap()];
    Some(serde_json::from_str(json).unwrap())
}
