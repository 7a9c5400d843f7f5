/* A request to the API that is refused. */

export class RequestError extends Error {
  override readonly name = 'RequestError';
  constructor(
    /** HTTP status. */
    readonly status: number,
    /** For programs, stable: "not-found", "bad-json", ... */
    readonly code: string,
    message: string,
    readonly headers: Record<string, string> = {},
  ) {
    super(message);
  }
}
