/** The live page, on the public SDK and nothing else: a prompt, its video, and everything that may be done to it meanwhile. */
import { connect, reconnectDelayMs, TurbocastError, type BrowserSession, type Change, type ModelInfo, type Prompt, type RunInfo, type SessionEvent, type SessionState, type VideoTransport } from '../index.js';
import { startAmbient } from './ambient.js';
import { ClipKeeper, download } from './clip.js';
import { CompanyPanel } from './company-panel.js';
import { buildControls } from './controls.js';
import { setToken, takeResumeToken, token } from './credentials.js';
import { DoctorPanel } from './doctor-panel.js';
import { element, make } from './element.js';
import { Figures } from './figures.js';
import { networkMeter } from './network-figures.js';
import { PromptList } from './prompt-list.js';
import { PromptMix } from './prompt-mix.js';
import { expiringNote, paceNote, progressOf, retryNote, statusOf, unknownWordsNote } from './sentences.js';
import { Settings } from './settings.js';
import { TimelineView } from './timeline-view.js';

/** A pause in typing after which an edited prompt is sent, so that half a word is not. Enter sends at once, and so does pasting. */
const TYPING_PAUSE_MS = 400;
const CLIP_SECONDS = 10;
const NETWORK_INTERVAL_MS = 1000;
const WAYS: { readonly [way in VideoTransport]: string } = { webrtc: 'WebRTC', websocket: 'WebSocket', fmp4: 'MP4 over WebSocket' };

const video = element<HTMLVideoElement>('video');
const still = element<HTMLCanvasElement>('still');
const promptField = element<HTMLInputElement>('prompt');
const startButton = element<HTMLButtonElement>('start');
const stopButton = element<HTMLButtonElement>('stop');
const pauseButton = element<HTMLButtonElement>('pause');
const figures = new Figures();
const timeline = new TimelineView();
const clip = new ClipKeeper();

let session: BrowserSession;
let model: ModelInfo | undefined;
let settings: Settings | undefined;
/** From Start until Stop: whatever breaks in between is mended and goes on. */
let isWanted = false;
let isGuest = false;
/** Sessions in a row that came to nothing. */
let attempts = 0;
/** The prompt that the server has, to send only what differs. */
let sentPrompt: Prompt = '';
let typingTimer: ReturnType<typeof setTimeout> | undefined;
let network = networkMeter();

const say = (text: string): void => {
	if (element('status').textContent !== text) {
		element('status').textContent = text;
	}
};

const note = (...content: (string | Node)[]): void => element('note').replaceChildren(...content);
const complain = (error: unknown): void => note(TurbocastError.from(error).message);

/** A button for what this server or model cannot do goes, once that is known. */
const act = (id: string, action: () => Promise<unknown>): void => {
	element(id).addEventListener('click', () => {
		action().catch((error: unknown) => {
			element(id).hidden = error instanceof TurbocastError && error.code === 'not_supported';
			note(error instanceof Error ? error.message : String(error));
		});
	});
};

const company = new CompanyPanel(() => session, note);
const prompts = new PromptList((prompt) => {
	promptField.value = prompt;
	void (isWanted ? sendEdit() : start());
});
new DoctorPanel(() => session);
const mix = new PromptMix(() => void sendEdit());

/** As it stands in the composer, and what is mixed into it. */
const currentPrompt = (): Prompt => mix.with(promptField.value.trim());
const isSame = (a: Prompt, b: Prompt): boolean => JSON.stringify(a) === JSON.stringify(b);

const isRunning = (state: SessionState): boolean => state.kind === 'generating' || state.kind === 'paused' || state.kind === 'restarting';
const isAfterStart = (state: SessionState): boolean => isRunning(state) || state.kind === 'queued' || state.kind === 'starting';

const showState = (state: SessionState): void => {
	document.body.dataset['state'] = state.kind === 'ended' ? 'ready' : state.kind;
	say(statusOf(state, isWanted));
	element('progress').textContent = progressOf(state);
	startButton.disabled = isWanted;
	stopButton.disabled = !isWanted;
	pauseButton.textContent = state.kind === 'paused' ? 'Play' : 'Pause';
	pauseButton.setAttribute('aria-pressed', String(state.kind === 'paused'));
	for (const id of ['pause', 'reset', 'fork', 'share']) {
		element<HTMLButtonElement>(id).disabled = !isRunning(state);
	}
};

/** Keeps the picture that is shown: browsers blacken a video whose connection ends. */
const keepPicture = (): void => {
	if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && video.videoWidth > 0) {
		still.width = video.videoWidth;
		still.height = video.videoHeight;
		still.getContext('2d')?.drawImage(video, 0, 0);
	}
};

const follow = (change: Change, isFirst: boolean): void => {
	note(unknownWordsNote(change.unknownWords));
	change.displayed.then(({ latencyMs }) => {
		if (isFirst) {
			document.body.dataset['shown'] = '';
			figures.firstPicture(latencyMs);
		} else {
			figures.changedPicture(latencyMs);
		}
	}, () => undefined);
	change.timeline.then((told) => timeline.showChange(told), () => undefined);
};

const start = async (): Promise<void> => {
	const prompt = currentPrompt();
	if (prompt === '') {
		isWanted = false;
		showState(session.state);
		note('The prompt is empty: say what should be seen, or take one of the examples.');
		promptField.focus();
		return;
	}
	const current = session;
	isWanted = true;
	sentPrompt = prompt;
	note('');
	showState(current.state);
	useText();
	const { seed, steps } = settings ?? {};
	try {
		follow(await current.start(prompt, { ...(seed === undefined ? {} : { seed }), ...(steps === undefined ? {} : { steps }) }), true);
	} catch (error) {
		const failure = TurbocastError.from(error);
		// A session that is over is connected anew, and started again from there.
		if (current === session && isWanted && current.state.kind !== 'failed' && current.state.kind !== 'ended') {
			retry(failure, () => isWanted && void start());
			showState(current.state);
		}
	}
};

/** The text of the composer is one click away from now on. */
const useText = (): void => {
	const text = promptField.value.trim();
	if (text !== '') {
		prompts.use(text);
	}
};

/** Tries again what failed, as long as that can help; otherwise says why not. */
const retry = (error: TurbocastError, again: () => void): void => {
	const delayMs = reconnectDelayMs(attempts, error);
	attempts += 1;
	if (delayMs === undefined) {
		isWanted = false;
		note(error.message);
		return;
	}
	note('');
	if (session.state.kind === 'failed') {
		say(retryNote(error, delayMs));
	} else {
		note(retryNote(error, delayMs));
	}
	setTimeout(again, delayMs);
};

const stop = (): void => {
	isWanted = false;
	note('');
	keepPicture();
	showState(session.state);
	void session.stop();
};

/** Sends the prompt as it stands, unless the server has it already. */
const sendEdit = async (): Promise<void> => {
	clearTimeout(typingTimer);
	const prompt = currentPrompt();
	const mayEdit = isGuest ? isRunning(session.state) && document.body.dataset['driving'] !== 'false' : isWanted;
	if (!mayEdit || isSame(prompt, sentPrompt) || prompt === '') {
		return;
	}
	sentPrompt = prompt;
	useText();
	try {
		follow(await session.setPrompt(prompt, settings?.promptOptions), false);
	} catch (error) {
		complain(error);
	}
};

const togglePause = (): Promise<void> => (session.state.kind === 'paused' ? session.play() : session.pause());

const reset = async (): Promise<void> => {
	const seed = settings?.seed;
	follow(await session.reset(seed === undefined ? {} : { seed }), false);
};

const fork = async (): Promise<void> => {
	const { resume_token: resumeToken } = await session.fork();
	const link = make('a', '', 'Open the other one');
	link.href = `${location.pathname}#resume=${resumeToken}`;
	link.target = '_blank';
	link.rel = 'noopener';
	note('From here on there are two. ', link, '.');
};

const saveClip = async (): Promise<void> => {
	// What comes over the socket passes no transform of the page: the server has kept it.
	const isOwn = session.transport.transport === 'webrtc' && clip.isSupported;
	download(isOwn ? await clip.take(CLIP_SECONDS) : await session.recording({ lastMs: CLIP_SECONDS * 1000 }), `turbocast ${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}.mp4`);
};

/** A session that runs, whoever started it: after a reload, a fork, or behind a shared link. */
const showRun = (run: RunInfo): void => {
	settings?.show(run.seed, run.steps);
	if (run.resumed || isGuest || !isWanted) {
		document.body.dataset['shown'] = '';
		isWanted = !isGuest;
		if (document.activeElement !== promptField) {
			promptField.value = run.prompts[0]?.text ?? '';
			mix.show(run.prompts);
		}
		sentPrompt = currentPrompt();
	}
};

const handle = (event: SessionEvent): void => {
	switch (event.type) {
		case 'state.changed':
			if (event.state.kind === 'restarting' || event.state.kind === 'failed' || event.state.kind === 'reconnecting') {
				keepPicture();
			}
			if (event.state.kind !== 'failed') {
				showState(event.state);
			}
			if (event.state.kind !== 'generating') {
				figures.pause();
			}
			return;
		case 'frame.displayed':
			attempts = 0;
			figures.frame(event.at_ms);
			if (event.timeline !== undefined) {
				timeline.frame(event.timeline);
			}
			return;
		case 'chunk.completed':
			if (model !== undefined) {
				figures.chunk(event, model.fps, session.run?.max_lead_ms ?? session.greeting?.limits.max_lead_ms ?? 1000);
				timeline.showChunk(event, model);
			}
			return;
		case 'error':
			// The loss of an engine is in the status line.
			if (event.event_id === undefined && event.code !== 'engine_failed') {
				note(event.message);
			}
			return;
		case 'generation.started':
			note('');
			return;
		case 'transport.changed':
			element('figure-way').textContent = event.transport === undefined ? '–' : WAYS[event.transport];
			element('way-reason').textContent = event.reason ?? '';
			return;
		case 'session.joined':
			isGuest = event.role !== 'owner';
			document.body.dataset['guest'] = String(isGuest);
			return;
		case 'session.ready':
			return showRun(event);
		case 'session.members':
			company.show(event);
			return;
		case 'session.expiring':
			element('expiring').textContent = expiringNote(event.reason, event.seconds_left);
			return;
		case 'pacing.updated':
			element('pace').textContent = paceNote(event, model?.fps ?? event.fps, (session.run?.steps ?? 1) > Math.min(...(model?.steps ?? [1])));
			return;
		case 'session.ended':
			company.ended();
			element('expiring').textContent = '';
			element('pace').textContent = '';
			return;
		default:
	}
};

const showModel = (info: ModelInfo): void => {
	if (model?.id === info.id) {
		return;
	}
	model = info;
	element('model').textContent = `${info.id}: ${info.title} · ${info.width}×${info.height}, ${info.fps} frames a second`;
	settings = new Settings(info, (steps) => {
		if (isRunning(session.state)) {
			session.setSteps(steps).then((change) => follow(change, false), complain);
		}
	});
	prompts.suggest(info.examples);
	element('steering').hidden = info.controls.length === 0;
	buildControls(element('controls'), info.controls, (axes) => {
		if (isAfterStart(session.state)) {
			session.act(axes).catch(complain);
		}
	});
};

/** Connects, follows the session to its end, and connects again, so that the next Start finds everything up. */
const live = async (): Promise<void> => {
	const credential = token();
	const resumeToken = takeResumeToken();
	const current = connect(undefined, {
		video, storage: sessionStorage, onReceiver: clip.watch,
		reconnect: ({ attempt, error }) => reconnectDelayMs(attempt, error),
		...(credential === undefined ? {} : { token: credential }),
		...(resumeToken === undefined ? {} : { resumeToken }),
	});
	session = current;
	network = networkMeter();
	company.show(undefined);
	showState(current.state);
	current.created.then((info) => {
		element('key-part').hidden = true;
		showModel(info);
		if (isWanted) {
			void start();
		}
	}, () => undefined);
	for await (const event of current.events()) {
		handle(event);
	}
	const last = await current.ended;
	if (last.kind !== 'failed') {
		if (!isGuest) {
			void live();
			return;
		}
		showState(last);
		say('The session has ended.');
		return;
	}
	const { error } = last;
	// Nobody watches: generating for them again would be no kindness.
	isWanted &&= error.code !== 'idle_timeout';
	showState(last);
	if (error.code === 'unauthorized' || error.code === 'token_expired') {
		// Asked for, not tried again: the same key will not do the next time.
		isWanted = false;
		note(error.message);
		element('key-part').hidden = false;
		return;
	}
	retry(error, () => void live());
	if (!error.entry.retryable && !isGuest) {
		// This session cannot go on, but the next may.
		setTimeout(() => void live(), reconnectDelayMs(attempts, undefined));
	}
};

element('composer').addEventListener('submit', (event) => {
	event.preventDefault();
	if (!isWanted) {
		void (isGuest ? sendEdit() : start());
	}
});

// While Start is disabled, Enter does not submit the form.
promptField.addEventListener('keydown', (event) => {
	if (event.key === 'Enter' && isWanted) {
		event.preventDefault();
		void sendEdit();
	}
});
promptField.addEventListener('input', (event) => {
	const { inputType, data, isComposing } = event as Partial<InputEvent>;
	const isTyping = isComposing === true || inputType?.startsWith('delete') === true || data?.length === 1;
	clearTimeout(typingTimer);
	typingTimer = setTimeout(() => void sendEdit(), isTyping ? TYPING_PAUSE_MS : 0);
});
stopButton.addEventListener('click', stop);
act('pause', togglePause);
act('reset', reset);
act('fork', fork);
act('clip', saveClip);
element('key-form').addEventListener('submit', (event) => {
	event.preventDefault();
	setToken(element<HTMLInputElement>('key').value.trim());
	note('');
	void live();
});
document.addEventListener('keydown', (event) => {
	const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLButtonElement;
	if (event.key === '/' && !isTyping) {
		event.preventDefault();
		promptField.focus();
	} else if (event.key === ' ' && !isTyping && isRunning(session.state)) {
		event.preventDefault();
		pauseButton.click();
	}
});
setInterval(() => {
	void session.stats().then((report) => {
		const told = report === undefined ? undefined : network(report);
		if (told !== undefined && isRunning(session.state)) {
			figures.network(told);
		}
	});
}, NETWORK_INTERVAL_MS);
startAmbient(video, () => session.state.kind === 'generating');
void live();
