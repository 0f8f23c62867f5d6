"use strict";
// Starts NiiVue in a case's three canvases when its button is pressed, or at once if the address ends in the id of its figure (#3d, #3d-2).
// NiiVue comes compressed in a <template>; it runs only if its text has the hash that the page's policy names.
(() => {
  const unpack = async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  };

  const library = async () => {
    if (globalThis.niivue) return globalThis.niivue;
    const code = document.createElement("script");
    code.textContent = await (await unpack(document.getElementById("niivue-code").content.textContent)).text();
    document.head.append(code);
    return globalThis.niivue;
  };

  const show = async (figure) => {
    const button = figure.querySelector("button");
    const words = figure.querySelector("[role=status]");
    button.disabled = true;
    try {
      const { Niivue, NVImage } = await library();
      figure.querySelector(".volumes").hidden = false;
      const views = [];
      for (const canvas of figure.querySelectorAll("canvas")) {
        const view = new Niivue({
          backColor: [0, 0, 0, 1], show3Dcrosshair: false, crosshairColor: [0.34, 0.71, 0.91, 1], crosshairWidth: 0.5, dragAndDropEnabled: false,
          isRadiologicalConvention: true, sagittalNoseLeft: true, isResizeCanvas: true, loadingText: "", isColorbar: false, clipPlaneColor: [0.36, 0.45, 0.62, 0.2],
        });
        await view.attachToCanvas(canvas);
        view.addVolume(await NVImage.loadFromBase64({
          base64: canvas.dataset.volume, name: canvas.dataset.name + ".nii.gz", colormap: "gray", cal_min: 1, cal_max: 254, trustCalMinMax: false,
        }));
        view.setSliceType(view.sliceTypeRender);
        view.setClipPlane([0.02, 270, 0]);
        view.setRenderAzimuthElevation(120, 15);
        views.push(view);
      }
      for (const view of views) view.broadcastTo(views.filter((other) => other !== view), { "2d": true, "3d": true, clipPlane: true, sliceType: true });
      const slices = document.createElement("button");
      slices.type = "button";
      slices.textContent = "Slices";
      slices.addEventListener("click", () => {
        const flat = slices.textContent === "Slices";
        for (const view of views) view.setSliceType(flat ? view.sliceTypeMultiplanar : view.sliceTypeRender);
        slices.textContent = flat ? "Turn in 3-D" : "Slices";
      });
      button.replaceWith(slices);
      words.textContent = "Drag to turn, scroll to move the cut; the three move together.";
      figure.dataset.state = "shown";
    } catch (error) {
      words.textContent = "This browser cannot show it (it needs WebGL 2 and a version of 2023 or later). The pictures above show the same.";
      figure.dataset.state = "failed";
      console.error(error);
    }
  };

  for (const figure of document.querySelectorAll("figure.viewer")) {
    figure.hidden = false;
    figure.querySelector("button").addEventListener("click", () => show(figure));
    if (location.hash === "#" + figure.id) show(figure);
  }
})();
