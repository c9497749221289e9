//! Follows one picture: shows how it comes on, keeps what is reached, and stops when asked to.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::output;
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::pipeline::{Image, Metadata, Picture, Reached};
use crate::scalediff::{self, Event, Latents, StageResult};

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends the work at its next step, and a second one ends the program at once.
pub fn listen() {
    let set = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(super::EXIT_CANCELLED));
        }
    });
    if let Err(error) = set {
        log::warn!("Ctrl-C will lose what is reached: {error}");
    }
}

/// # Errors
/// Ctrl-C was pressed.
pub fn check() -> Result<()> {
    match STOP.load(Ordering::Relaxed) {
        true => Err(Error::cancelled()),
        false => Ok(()),
    }
}

/// Follows one picture.
pub struct Watch<'a> {
    progress: Progress,
    path: &'a Path,
    metadata: Metadata,
    /// Write the picture of every stage.
    pub save_stages: bool,
    /// Into the pictures.
    pub write_metadata: bool,
    /// What --save-latent keeps, and where.
    kept: Option<(Reached, PathBuf)>,
    /// The last stage's picture, until there is the final one.
    last: Option<(u32, Image)>,
    /// The first thing that could not be kept. The work goes on: it may be worth more than its copies.
    failure: Option<Error>,
}

impl<'a> Watch<'a> {
    /// Follows the picture that goes to `path`.
    pub fn new(path: &'a Path, metadata: Metadata) -> Self {
        Self {
            progress: Progress::new(),
            path,
            metadata,
            save_stages: false,
            write_metadata: true,
            kept: None,
            last: None,
            failure: None,
        }
    }

    /// Keeps what is reached in `file`, after what an earlier run has.
    pub fn keep_in(&mut self, file: &Path, earlier: Option<&Reached>) {
        let reached = earlier.cloned().unwrap_or_else(|| Reached::new(self.metadata.clone()));
        self.kept = Some((reached, file.to_owned()));
    }

    /// Writes the picture that was made; or, after an error, that of the last stage that was finished.
    ///
    /// # Errors
    /// The error that ended the work, or a file that could not be written.
    pub fn finish(mut self, made: Result<Picture>) -> Result<Picture> {
        self.progress.finish();
        match made {
            Ok(picture) => {
                self.save(&picture.image(), None)?;
                self.failure.map_or(Ok(picture), Err)
            }
            Err(error) => {
                if let Some((stage, image)) = self.last.take().filter(|_| !self.save_stages) {
                    match self.save(&image, Some(stage)) {
                        Ok(path) => errln!("stage {stage} was finished: {}", path.display()),
                        Err(error) => super::print_error(&error),
                    }
                }
                if let Some((reached, path)) = self.kept
                    && self.failure.is_none()
                    && reached.last().is_ok_and(|last| last.is_some())
                {
                    errln!("go on with --resume {}", path.display());
                }
                Err(error)
            }
        }
    }

    /// Writes the picture, or that of a stage.
    fn save(&self, image: &Image, stage: Option<u32>) -> Result<PathBuf> {
        let path = match stage {
            Some(stage) => output::stage_name(self.path, stage),
            None => self.path.to_owned(),
        };
        let metadata = match stage {
            Some(stage) => self.metadata.of_stage(stage, image.width, image.height),
            None => self.metadata.clone(),
        };
        image.save_png(&path, self.write_metadata.then_some(&metadata))?;
        Ok(path)
    }

    fn note(&mut self, kept: Result<()>) {
        if let Err(error) = kept {
            log::warn!("not kept: {error}");
            self.failure.get_or_insert(error);
        }
    }

    fn write_kept(&mut self) {
        let written = self.kept.as_ref().map_or(Ok(()), |(reached, path)| reached.write(path));
        self.note(written);
    }
}

impl scalediff::Progress for Watch<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        self.progress.show(event);
        check()
    }

    fn latents(&mut self, stage: u32, latents: &Latents) -> Result<()> {
        if let Some((reached, _)) = &mut self.kept {
            reached.add(stage, latents);
            self.write_kept();
        }
        Ok(())
    }

    fn stage(&mut self, result: &StageResult) -> Result<()> {
        if let Some((reached, _)) = self.kept.as_mut().filter(|_| result.stage == 0) {
            reached.add_picture(result);
            self.write_kept();
        }
        let image = Picture::of(result).image();
        if self.save_stages {
            let saved = self.save(&image, Some(result.stage)).map(|_| ());
            self.note(saved);
        }
        self.last = (result.stage < result.stages).then_some((result.stage, image));
        Ok(())
    }
}
