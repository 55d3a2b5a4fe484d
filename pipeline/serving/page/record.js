// Records a clip from camera and microphone, in this page alone, and draws its sound; page.js sends it when it is asked to.
"use strict";

const KINDS = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"]; // the first that the browser can write
const BITS = 1_000_000; // a second, at most
const COLUMNS = 120; // of a drawing of sound

// The largest amplitude in each of so many equal parts of the samples, from 0 to 1.
function peaks(samples, columns) {
  const size = samples.length / columns, found = [];
  for (let at = 0; at < columns; at++) {
    let most = 0;
    for (let here = Math.floor(at * size); here < Math.floor((at + 1) * size); here++) most = Math.max(most, Math.abs(samples[here]));
    found.push(Math.min(most, 1));
  }
  return found;
}

// Bars around the middle of a drawing 2 high and as wide as there are amplitudes; silence is a thin line.
const outline = (amplitudes) => amplitudes
  .map((amplitude) => Math.max(amplitude, 0.02))
  .map((half, at) => `M${at + 0.15} ${(1 - half).toFixed(3)}h.7v${(2 * half).toFixed(3)}h-.7z`).join("");

function drawing(label) {
  const shape = make("path");
  const node = make("svg", { viewBox: `0 0 ${COLUMNS} 2`, preserveAspectRatio: "none", class: "wave", role: "img", "aria-label": label }, shape);
  return { node, draw: (amplitudes) => shape.setAttribute("d", outline(amplitudes)) };
}

// The drawing of a file's sound; null where it has none that the browser can read.
async function waveform(file) {
  try {
    // A file without sound, or in a format of pictures, is refused here; what the server makes of it is another matter.
    const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(await file.arrayBuffer());
    const { node, draw } = drawing(`The sound of the clip, ${sound.duration.toFixed(1)} seconds`);
    draw(peaks(sound.getChannelData(0), COLUMNS));
    return node;
  } catch {
    return null;
  }
}

// A recorded clip does not say how long it is; the browser finds out when it is sent to its end.
function measured(video) {
  video.addEventListener("loadedmetadata", () => {
    if (video.duration !== Infinity) return;
    video.addEventListener("durationchange", () => { video.currentTime = 0; }, { once: true });
    video.currentTime = 1e9;
  }, { once: true });
  return video;
}

const REFUSALS = {
  NotAllowedError: "The browser was not allowed to use camera and microphone.",
  NotFoundError: "There is no camera, or no microphone.",
  NotReadableError: "Camera or microphone are in use elsewhere.",
};

class Recorder {
  // `place` holds what is seen meanwhile; `limits` are those of the server; `told` hears of every change.
  constructor(place, limits, told) {
    // The server refuses longer clips, and browsers stop a little late.
    Object.assign(this, { place, limits, told, seconds: Math.max(limits.clip_seconds - 1, 0.5), asking: false, active: null, kept: false });
  }

  static get possible() {
    return Boolean(navigator.mediaDevices?.getUserMedia) && "MediaRecorder" in window && KINDS.some((kind) => MediaRecorder.isTypeSupported(kind));
  }

  // Until it is stopped or has lasted as long as a clip may: the clip, or null where it was thrown away. Throws what to say.
  async record() {
    let stream;
    this.asking = true; // for leave, which takes as long as the reader likes
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, facingMode: "user" }, audio: true });
    } catch (error) {
      throw new Error(REFUSALS[error.name] ?? `Nothing can be recorded: ${error.message}`);
    } finally {
      this.asking = false;
    }
    const stop = this.watch(stream);
    try {
      const { bytes, clip_seconds } = this.limits, kind = KINDS.find((one) => MediaRecorder.isTypeSupported(one));
      const recorder = new MediaRecorder(stream, { mimeType: kind, bitsPerSecond: Math.min(BITS, (6 * bytes) / clip_seconds) });
      const parts = [];
      recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
      const over = new Promise((resolve) => recorder.addEventListener("stop", resolve));
      Object.assign(this, { active: recorder, kept: true });
      recorder.start();
      this.told();
      const late = setTimeout(() => this.stop(true), 1000 * this.seconds);
      await over;
      clearTimeout(late);
      const type = kind.split(";")[0];
      return this.kept ? new File(parts, `recording.${type.split("/")[1]}`, { type }) : null;
    } finally {
      stop();
      this.active = null;
      this.told();
    }
  }

  stop(kept) {
    this.kept = kept;
    if (this.active?.state === "recording") this.active.stop();
  }

  // Shows what camera and microphone take; gives what ends it, and lets go of both.
  watch(stream) {
    const video = make("video", { playsinline: "", "aria-label": "What the camera sees" });
    Object.assign(video, { srcObject: stream, muted: true });
    video.play().catch(() => {}); // a browser that shows nothing meanwhile records all the same
    const context = new AudioContext(), listener = context.createAnalyser(), samples = new Float32Array(listener.fftSize);
    context.createMediaStreamSource(stream).connect(listener);
    const { node, draw } = drawing("What the microphone hears"), clock = make("p", { class: "muted clock", "aria-hidden": "true" });
    const heard = Array(COLUMNS).fill(0), start = performance.now();
    const timer = setInterval(() => {
      listener.getFloatTimeDomainData(samples);
      heard.push(...peaks(samples, 1));
      heard.shift();
      draw(heard);
      clock.textContent = `${((performance.now() - start) / 1000).toFixed(1)} s`;
    }, 50);
    this.place.replaceChildren(video, node, clock);
    this.place.hidden = false;
    return () => {
      clearInterval(timer);
      context.close();
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
      this.place.replaceChildren();
      this.place.hidden = true;
    };
  }
}
