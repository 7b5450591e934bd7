/** The live page, on the public SDK and nothing else: one `<video>`, one prompt, Start and Stop. */
import { connect, reconnectDelayMs, TurbocastError, type Change, type LiveSession, type ModelInfo, type SessionEvent, type SessionState } from '../index.js';
import { startAmbient } from './ambient.js';
import { buildControls } from './controls.js';
import { Figures } from './figures.js';
import { progressOf, retryNote, statusOf, unknownWordsNote } from './sentences.js';

/** A pause in typing after which an edited prompt is sent, so that half a word is not. Enter sends at once, and so does pasting. */
const TYPING_PAUSE_MS = 400;

const element = <T extends HTMLElement = HTMLElement>(id: string): T => {
	const found = document.getElementById(id);
	if (found === null) {
		throw new Error(`The page has no #${id}.`);
	}
	return found as T;
};

const video = element<HTMLVideoElement>('video');
const still = element<HTMLCanvasElement>('still');
const promptField = element<HTMLInputElement>('prompt');
const startButton = element<HTMLButtonElement>('start');
const stopButton = element<HTMLButtonElement>('stop');
const statusText = element('status');
const progressText = element('progress');
const noteText = element('note');
const figures = new Figures(element);

/**
 * A credential behind the page's address, `#token=...`: browsers send the fragment to nobody. It is taken out of the address bar at once,
 * so that a screenshot or a copied address does not give it away, and kept until the tab is closed, so that a reload finds it.
 */
const token = ((): string | undefined => {
	const given = new URLSearchParams(location.hash.slice(1)).get('token');
	if (given !== null) {
		sessionStorage.setItem('token', given);
		history.replaceState(null, '', location.pathname + location.search);
	}
	return sessionStorage.getItem('token') ?? undefined;
})();
// Typed behind the address of a page that is open already.
addEventListener('hashchange', () => location.reload());

let session: LiveSession;
let model: ModelInfo | undefined;
/** From Start until Stop: whatever breaks in between is mended and goes on. */
let isWanted = false;
/** Connections and starts in a row that came to nothing. */
let attempts = 0;
/** The prompt that the server has, to send only what differs. */
let sentPrompt = '';
let typingTimer: ReturnType<typeof setTimeout> | undefined;

const say = (text: string): void => {
	if (statusText.textContent !== text) {
		statusText.textContent = text;
	}
};

const note = (text: string): void => {
	noteText.textContent = text;
};

const showState = (state: SessionState): void => {
	document.body.dataset['state'] = state.kind === 'ended' ? 'ready' : state.kind;
	say(statusOf(state, isWanted));
	progressText.textContent = progressOf(state);
	startButton.disabled = isWanted;
	stopButton.disabled = !isWanted;
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

const start = async (): Promise<void> => {
	const prompt = promptField.value.trim();
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
	try {
		follow(await current.start(prompt), true);
	} catch (error) {
		const failure = TurbocastError.from(error);
		// A session that is over is connected anew, and started again from there.
		if (current === session && isWanted && current.state.kind !== 'failed' && current.state.kind !== 'ended') {
			retry(failure, () => isWanted && void start());
			showState(current.state);
		}
	}
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
	const prompt = promptField.value.trim();
	if (!isWanted || prompt === sentPrompt || prompt === '') {
		return;
	}
	sentPrompt = prompt;
	try {
		follow(await session.setPrompt(prompt), false);
	} catch (error) {
		note(TurbocastError.from(error).message);
	}
};

const isAfterStart = (state: SessionState): boolean => state.kind === 'queued' || state.kind === 'starting' || state.kind === 'generating' || state.kind === 'restarting';

const handle = (event: SessionEvent): void => {
	switch (event.type) {
		case 'state.changed':
			if (event.state.kind === 'restarting' || event.state.kind === 'failed') {
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
			return;
		case 'chunk.completed':
			figures.chunk(event, model?.fps ?? 16);
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
		default:
	}
};

const showModel = (info: ModelInfo): void => {
	if (model?.id === info.id) {
		return;
	}
	model = info;
	element('model').textContent = `${info.id}: ${info.title} · ${info.width}×${info.height}, ${info.fps} frames a second`;
	element('examples').replaceChildren(...info.examples.slice(0, 6).map((example) => {
		const button = document.createElement('button');
		button.type = 'button';
		button.textContent = example;
		button.addEventListener('click', () => {
			promptField.value = example;
			void (isWanted ? sendEdit() : start());
		});
		const item = document.createElement('li');
		item.append(button);
		return item;
	}));
	element('steering').hidden = info.controls.length === 0;
	buildControls(element('controls'), info.controls, (axes) => {
		if (isAfterStart(session.state)) {
			session.act(axes).catch((error: unknown) => note(TurbocastError.from(error).message));
		}
	});
};

/** Connects, follows the session to its end, and connects again, so that the next Start finds everything up. */
const live = async (): Promise<void> => {
	const current = connect(undefined, { video, ...(token === undefined ? {} : { token }) });
	session = current;
	showState(current.state);
	current.created.then((info) => {
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
		void live();
		return;
	}
	const { error } = last;
	// Nobody watches: generating for them again would be no kindness.
	isWanted &&= error.code !== 'idle_timeout';
	showState(last);
	retry(error, () => void live());
	if (!error.entry.retryable) {
		// This session cannot go on, but the next may.
		setTimeout(() => void live(), reconnectDelayMs(attempts, undefined));
	}
};

element('composer').addEventListener('submit', (event) => {
	event.preventDefault();
	if (!isWanted) {
		void start();
	}
});
// While Start is disabled, Enter does not submit the form.
promptField.addEventListener('keydown', (event) => {
	if (event.key === 'Enter' && isWanted) {
		event.preventDefault();
		void sendEdit();
	}
});
stopButton.addEventListener('click', stop);
promptField.addEventListener('input', (event) => {
	const { inputType, data, isComposing } = event as Partial<InputEvent>;
	const isTyping = isComposing === true || inputType?.startsWith('delete') === true || data?.length === 1;
	clearTimeout(typingTimer);
	typingTimer = setTimeout(() => void sendEdit(), isTyping ? TYPING_PAUSE_MS : 0);
});
startAmbient(video, () => session.state.kind === 'generating');
void live();
