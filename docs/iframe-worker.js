// SPDX-License-Identifier: Apache-2.0
// Browsers start no worker from a file, so a page that is opened from a folder could not be searched.
// There, a frame without a face does a worker's work: what the search needs of `Worker`, no more.
"use strict";
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(address) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    this.early = [];
    addEventListener("message", event => {
      if (event.source !== this.frame.contentWindow) return;
      if (event.data === "iframe-worker ready") {
        const early = this.early;
        this.early = null;
        early.forEach(data => this.postMessage(data));
      } else this.dispatchEvent(new MessageEvent("message", { data: event.data }));
    });
    const script = document.createElement("script");
    script.src = new URL(address, document.baseURI).href;
    document.body.append(this.frame);
    const inside = this.frame.contentDocument;
    inside.open();
    inside.write(`<!doctype html><base href="${document.baseURI}"><body><script>
      window.postMessage = data => parent.postMessage(data, "*");
      window.importScripts = (...addresses) => addresses.reduce((before, address) => before.then(() =>
        new Promise(done => document.body.appendChild(Object.assign(document.createElement("script"),
          { src: address, onload: done })))), Promise.resolve());
      <\/script>${script.outerHTML}<script>parent.postMessage("iframe-worker ready", "*")<\/script>`);
    inside.close();
  }
  postMessage(data) {
    if (this.early) this.early.push(data);
    else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
  }
  terminate() { this.frame.remove(); }
};
