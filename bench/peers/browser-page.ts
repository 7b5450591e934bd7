/** Pages that play one WHEP address in any browser and tell the measurement how it went: a browser that nobody drives needs no driver. */

/** `setup`: what is known of ICE before there is a connection. */
const common = (setup = 'const ice = {};'): string => `
const query = new URLSearchParams(location.search);
const url = query.get('url');
const video = document.querySelector('video');
const startedAt = performance.now();
const result = { connected: false, frames: 0, sizes: [], firstMs: null, ended: null };
${setup}
const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', ...ice });
pc.addTransceiver('video', { direction: 'recvonly' });
pc.ontrack = ({ track }) => { video.srcObject = new MediaStream([track]); void video.play(); };
pc.addEventListener('connectionstatechange', () => { result.connected ||= pc.connectionState === 'connected'; });
const watch = () => {
	// Not the frames that were painted: Firefox without a window paints none.
	if (video.videoWidth > 0) {
		result.firstMs ??= performance.now() - startedAt;
		const size = video.videoWidth + 'x' + video.videoHeight;
		if (!result.sizes.includes(size)) { result.sizes.push(size); }
	}
	setTimeout(watch, 5);
};
watch();
const report = (more) => fetch('/result?id=' + query.get('id'), { method: 'POST', body: JSON.stringify({ ...result, ...more }) });
const finish = async (end) => {
	await new Promise((done) => setTimeout(done, 1000 * Number(query.get('seconds'))));
	const stats = await pc.getStats();
	for (const entry of stats.values()) {
		if (entry.type === 'inbound-rtp' && entry.kind === 'video') { result.frames = entry.framesDecoded ?? 0; }
		if (entry.type === 'candidate-pair' && entry.nominated && entry.state === 'succeeded') { result.way = stats.get(entry.localCandidateId)?.candidateType; }
	}
	result.ended = await end();
	pc.close();
	await report({});
};
window.onerror = (message) => { void report({ error: String(message) }); };
window.onunhandledrejection = ({ reason }) => { if (!result.connected) { void report({ error: String(reason) }); } };
`;

const play = (setup?: string): string => `<!doctype html><video muted playsinline></video><script type="module">${common(setup)}
await pc.setLocalDescription();
if (pc.iceGatheringState !== 'complete') {
	await new Promise((done) => { pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done(); setTimeout(done, 5000); });
}
result.candidates = pc.localDescription.sdp.split('a=candidate:').length - 1;
const answer = await fetch(url, { method: 'POST', body: pc.localDescription.sdp, headers: { 'content-type': 'application/sdp' } });
const place = new URL(answer.headers.get('location'), url);
await pc.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
await finish(async () => (await fetch(place, { method: 'DELETE' })).status);
</script>`;

/** As docs/players.md has it. */
export const PLAIN_PAGE = play();

/** The same, by nothing but the TURN server that its address names, as behind a firewall. */
export const RELAY_PAGE = play("const ice = { iceTransportPolicy: 'relay', iceServers: JSON.parse(query.get('ice')) };");

/** The client of the npm package whip-whep, served at /whep.js. It trickles, and says nothing of the DELETE's answer. */
export const WHIP_WHEP_PAGE = `<!doctype html><video muted playsinline></video><script type="module">${common()}
const { WHEPClient } = await import('/whep.js');
const client = new WHEPClient();
await client.view(pc, url);
await finish(async () => {
	const resource = client.resourceURL;
	return (await fetch(resource, { method: 'DELETE' })).status;
});
</script>`;
