/** The client SDK for React: a session that lives as long as its component. React itself is the application's. */
import { useCallback, useEffect, useRef, useState, useSyncExternalStore, type RefObject } from 'react';
import type { BrowserSession } from './browser-session.js';
import { connect, type ConnectOptions } from './client.js';
import type { SessionState } from './session-state.js';

export type LiveHook = {
	/** For the `ref` of the `<video>` that shows the picture. */
	readonly video: RefObject<HTMLVideoElement | null>;
	/** `undefined` until the component is mounted. */
	readonly session: BrowserSession | undefined;
	/** Re-renders the component when it changes. */
	readonly state: SessionState;
};

const CONNECTING: SessionState = { kind: 'connecting' };

/**
 * Connects when the component is mounted or `url` changes, and ends the session when it goes. The options are those of `connect`, as they were at that moment.
 */
export const useLiveSession = (url?: string, options: Omit<ConnectOptions, 'video'> = {}): LiveHook => {
	const video = useRef<HTMLVideoElement>(null);
	const latest = useRef(options);
	const [session, setSession] = useState<BrowserSession>();
	useEffect(() => {
		latest.current = options;
	});
	useEffect(() => {
		const opened = connect(url, { ...latest.current, video: video.current });
		setSession(opened);
		return () => opened.close();
	}, [url]);
	const subscribe = useCallback((onChange: () => void) => {
		const reading = new AbortController();
		const read = async (): Promise<void> => {
			for await (const event of session?.events({ signal: reading.signal }) ?? []) {
				if (event.type === 'state.changed') {
					onChange();
				}
			}
		};
		void read();
		return () => reading.abort();
	}, [session]);
	const state = useSyncExternalStore(subscribe, () => session?.state ?? CONNECTING, () => CONNECTING);
	return { video, session, state };
};
