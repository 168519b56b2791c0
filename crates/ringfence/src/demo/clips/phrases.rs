//! What the people of `clips` say: sentences with slots, and what the slots hold.
//!
//! Some private messages give an address or a telephone number away, as people do; that is what
//! makes them worth protecting. The slots are those of [`super::speech`].

/// Private messages; a prime number of them, see [`super::rows`].
pub(super) static MESSAGES: &[&str] = &[
    "are you still up for {plan} on {day}?",
    "can't believe it's {day} already",
    "{friend} said you're learning {hobby} now, is that true?",
    "did you see {friend}'s last clip? I laughed so hard",
    "ok so I tried the {food} from your video and it actually worked",
    "running late, be there at {time}",
    "what time are we meeting on {day}?",
    "I'm at the {spot} by the entrance, where are you?",
    "happy birthday!! hope you get all the {food} you want",
    "sorry, fell asleep, what did I miss?",
    "my phone died in the middle of {hobby}, classic",
    "do you want to film something together on {day}?",
    "you left your {thing} at my place",
    "new address if you want to send the {thing}: {number} {street}, {place}",
    "my new number is {phone}, please delete the old one",
    "call me at {phone} when you're out of the {spot}",
    "please don't tell {friend} yet, it's a surprise",
    "I got the job!! I start on {day}",
    "they let me go today. not ready to talk about it",
    "doctor says it's nothing serious, thanks for asking",
    "got my test results back, all clear",
    "mum is back home from hospital, she says hi",
    "thinking of moving to {place}, am I crazy?",
    "we're in {place} until {day}, want to grab {food}?",
    "can you send me the link to that {thing}?",
    "how much was your {thing}? mine just broke",
    "I owe you {money} for the {food}, sending it now",
    "you still owe me {money} from {day} haha",
    "rent went up by {money}, so no {plan} for me this month",
    "who is that in your story?? is that {friend}?",
    "{friend} and I broke up, I'll tell you on {day}",
    "I really like you, but I need some time",
    "my parents don't know I'm on here so please don't tag me",
    "could you take down the clip where you can see my house?",
    "stop sending my videos to {friend} please",
    "I blocked that guy, he kept asking where I live",
    "someone at the {spot} recognised me from my {hobby} videos, so weird",
    "your {hobby} video just hit my front page",
    "{count}k views overnight, what is happening",
    "the comments under my {food} video are wild",
    "which song did you use in the {hobby} clip?",
    "the lighting in your last one is so good, which {thing} is that?",
    "I can lend you my {thing} until {day}",
    "let's do {plan} instead, it's going to rain",
    "is {friend} coming to {plan}?",
    "see you at {time} at the {spot}",
    "bus is stuck near the {spot}, start without me",
    "save me a seat next to {friend}",
    "what should I bring for {plan}? I can make {food}",
    "I'm bringing {food}, you bring the {thing}",
    "just had the best {food} of my life in {place}",
    "day {count} of {hobby} and my hands hurt",
    "do you think {count} minutes a day is enough for {hobby}?",
    "my teacher found my account, please pray for me",
    "exam on {day} and I have not opened the book",
    "we passed!!! drinks at the {spot} at {time}",
    "can you cover my shift on {day}? I have {plan}",
    "flight lands at {time}, can you pick me up?",
    "I'm home. door code is still {number}",
    "key is under the plant at {number} {street}",
    "your package came, I put it next to the {thing}",
    "the cat knocked over my {thing} again",
    "look at this dog I met at the {spot}",
    "thank you for yesterday, I needed that",
    "I voted this morning, the line at the {spot} was endless",
    "going to church with my grandmother on {day}, talk after",
    "are you okay? you've been quiet since {day}",
    "I haven't slept properly in {count} days",
    "my therapist says I should say no more often. so: no",
    "no worries, take care of yourself first",
    "lol {friend} just asked me the same thing",
    "haha stop, I'm in the library",
    "that's hilarious, send it to {friend}",
    "wait, you know {friend}? small world",
    "we should really call again, {day} at {time}?",
    "do you have {friend}'s number? mine is {phone}",
    "thinking about selling my {thing} for {money}, interested?",
    "I'd pay {money} for that, not more",
    "tickets are {money} each, shall I get two?",
    "{place} was amazing, I'll show you the photos on {day}",
    "found a tiny place for {food} behind the {spot}",
    "my sister wants to start {hobby}, any advice?",
    "how do you edit so fast? it takes me {count} hours",
    "draft is done, can you watch it before I post?",
    "posted it! please be nice in the comments",
    "deleted it again, the sound was off",
    "the brand offered {money} for one clip, what would you say?",
    "good luck today, you've got this",
    "ok goodnight, {plan} tomorrow, don't forget",
];

/// Titles of videos; a prime number of them too.
pub(super) static TITLES: &[&str] = &[
    "{hobby}: day {count}",
    "my {hobby} setup for under {money}",
    "{count} things I wish I knew before {hobby}",
    "trying {food} for the first time",
    "{food} in {count} minutes",
    "{food} like my grandmother makes it",
    "I ranked all the {food} in {place}",
    "where to get {food} in {place}",
    "{place} at {time}",
    "{place} in {count} seconds",
    "a slow {day} in {place}",
    "get ready with me for {plan}",
    "come with me: {plan}",
    "what I eat on a {day}",
    "the {thing} that changed my {hobby}",
    "is this {thing} worth {money}?",
    "honest review: {thing}",
    "unboxing my new {thing}",
    "POV: {plan} with your best friend",
    "POV: you said you were good at {hobby}",
    "beginner mistakes in {hobby}",
    "{hobby} tips nobody tells you",
    "{hobby} but the floor is wet",
    "teaching my dad {hobby}",
    "my dog reacts to {hobby}",
    "my cat versus the {thing}",
    "reply to comments about the {food}",
    "part {count}: the {thing} story",
    "storytime: what happened at the {spot}",
    "how I learned {hobby} in {count} weeks",
    "{count} days of {hobby}, before and after",
    "satisfying {hobby} with sound on",
    "thrifted this {thing} for {money}",
    "fixing a broken {thing}",
    "rating the {spot} in {place}",
    "early morning at the {spot}",
    "study with me until {time}",
    "{day} reset",
    "small business {day}: packing orders",
    "duet this if you love {food}",
    "no talking, just {hobby}",
    "I was not ready for {plan}",
    "{home} locals only",
];

/// Descriptions of videos.
pub(super) static DESCRIPTIONS: &[&str] = &[
    "Full recipe in the comments. #{tag} #food",
    "Took me {count} tries. #{tag}",
    "Sound on! #{tag} #fyp",
    "Filmed in {place} on a {day}. #{tag}",
    "Not an ad, I bought the {thing} myself. #{tag}",
    "Save this for later. #{tag} #tips",
    "Tell me your favourite {food} below.",
    "Thanks for {count}k, you are the best! #{tag}",
    "Part {count} if this gets enough likes.",
    "Shot on my phone, edited on the train. #{tag}",
    "Do not try this without a {thing}. #{tag}",
    "Should I do {place} next? #{tag} #travel",
    "New {hobby} video every {day}. #{tag}",
    "Beginners welcome. #{tag} #learn",
    "Wait for the end. #{tag}",
    "This is your sign to start {hobby}. #{tag}",
    "Inspired by a comment from last {day}.",
    "My {thing} is linked on my profile. #{tag}",
    "Paid partnership. #{tag} #ad",
    "All I needed was {food}. #{tag} #mood",
    "Which one would you pick? #{tag}",
    "{place}, you have my heart. #{tag}",
    "Be kind, it's my first {hobby} clip. #{tag}",
    "Captions on for the details. #{tag}",
    "#{tag} #{tag} #fyp",
    "",
];

/// What users say of themselves.
pub(super) static BIOS: &[&str] = &[
    "{hobby} and {food}",
    "{hobby} | {hobby} | {home}",
    "{home} based. {hobby} most days.",
    "just here for the {food}",
    "new clip every {day}",
    "amateur at {hobby}, professional at {food}",
    "student. {hobby} when I should be studying.",
    "dog person, {hobby} person, not a morning person",
    "making {food} look easy since {year}",
    "I post when I feel like it",
    "{hobby} for beginners. no gear snobs.",
    "slow mornings in {home}",
    "will travel for {food}",
    "opinions are my own, the {thing} is borrowed",
    "ask me about my {thing}",
    "collabs: message me here",
    "reviews of every {spot} in {home}",
    "looking for the best {food} in {home}",
    "doing {hobby} badly on purpose",
    "{hobby}. {home}. that is all.",
    "{food} enthusiast",
    "est. {year}",
    "trying {hobby} every day in {year}",
    "lurker. sometimes {hobby}.",
    "{home} born and raised",
    "here to learn {hobby}",
    "",
    "",
    "",
    "",
    "",
];

/// What users who are no longer all that young say of themselves.
pub(super) static GROWN_UP_BIOS: &[&str] = &[
    "nurse by day, {hobby} by night",
    "teacher, tired, into {hobby}",
    "parent of three, learning {hobby}",
    "two kids and a very loud cat",
    "engineer who would rather do {hobby}",
    "part-time barista, full-time {hobby}",
    "small shop in {home}, handmade {thing} cases",
    "electrician. I explain things.",
    "old enough to remember film cameras",
    "my kids said I should post this",
    "paramedic in {home}. {food} after every shift.",
    "{home} since before it was expensive",
];

/// Something one does; it stands for a noun.
#[rustfmt::skip]
pub(super) static HOBBIES: &[&str] = &[
    "acrylic painting", "baking", "ballet", "beatboxing", "beekeeping", "birdwatching",
    "bouldering", "breakdance", "calligraphy", "chess", "crochet", "cycling", "drumming",
    "film photography", "fishing", "fencing", "furniture flipping", "gardening", "guitar", "hiking",
    "ice skating", "juggling", "jump rope", "kayaking", "knitting", "lip reading", "longboarding",
    "magic tricks", "meal prep", "miniature painting", "nail art", "origami", "parkour", "piano",
    "pottery", "pull-ups", "roller skating", "running", "salsa", "sewing", "sign language",
    "skateboarding", "soap making", "speedcubing", "stand-up", "stop motion", "surfing",
    "table tennis", "tap dance", "thrifting", "trail running", "urban sketching", "vogueing",
    "woodworking", "yoga",
];

/// Something one eats or drinks; it stands for a noun without an article.
#[rustfmt::skip]
pub(super) static FOODS: &[&str] = &[
    "banana bread", "bao", "barbecue", "bibimbap", "birria tacos", "boba", "brownies", "bún chả",
    "carbonara", "chicken rice", "chili crisp eggs", "cinnamon rolls", "cold brew", "congee",
    "croissants", "curry puffs", "dan dan noodles", "dumplings", "falafel", "fried chicken",
    "gelato", "gumbo", "hot pot", "jollof rice", "key lime pie", "kimchi stew", "laksa",
    "mac and cheese", "mango sticky rice", "matcha latte", "mochi", "onion soup", "pancakes",
    "paella", "pierogi", "pizza", "poke bowls", "ramen", "risotto", "roti prata",
    "scallion pancakes", "shakshuka", "soda bread", "sourdough", "stroopwafels", "tamales",
    "tiramisu", "tortilla",
];

/// Something one does together; it stands after "up for".
#[rustfmt::skip]
pub(super) static PLANS: &[&str] = &[
    "a road trip", "brunch", "bowling", "the concert", "dinner", "the farmers market",
    "the flea market", "game night", "the gym", "karaoke", "a long walk", "movie night", "open mic",
    "a picnic", "the night market", "the beach", "thrifting",
    "trivia night",
];

/// Something one owns; it stands after "your".
#[rustfmt::skip]
pub(super) static THINGS: &[&str] = &[
    "air fryer", "backpack", "bike", "camera", "charger", "desk lamp", "drone", "film camera",
    "hair dryer", "hoodie", "jacket", "keyboard", "laptop stand", "lens", "microphone", "notebook",
    "phone", "power bank", "projector", "ring light", "sewing machine", "skateboard", "tote bag",
    "tripod", "turntable", "umbrella", "water bottle",
];

/// Somewhere in a town; it stands after "the".
#[rustfmt::skip]
pub(super) static SPOTS: &[&str] = &[
    "airport", "bakery", "bookshop", "bus stop", "café", "cinema", "climbing hall",
    "community centre", "corner shop", "food court", "gym", "harbour", "library", "mall", "market",
    "museum", "park", "pool", "school", "skate park", "stadium", "station", "studio", "supermarket",
];

#[rustfmt::skip]
pub(super) static STREETS: &[&str] = &[
    "Alder Street", "Beacon Road", "Birch Lane", "Canal Street", "Cedar Avenue", "Chapel Road",
    "Chestnut Street", "Church Street", "Elm Street", "Garden Road", "Harbour Road", "High Street",
    "Hillside Avenue", "Juniper Lane", "Lake Street", "Linden Street", "Maple Avenue",
    "Market Street", "Mill Road", "Oak Street", "Orchard Road", "Park Avenue", "Pine Street",
    "River Road", "School Lane", "Station Road", "Sunset Boulevard", "Willow Lane",
];

pub(super) static DAYS: &[&str] =
    &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

#[rustfmt::skip]
pub(super) static TAGS: &[&str] = &[
    "art", "beforeandafter", "booktok", "budget", "cat", "comedy", "cooking", "crafts", "dance",
    "diy", "dog", "duet", "easyrecipe", "fitness", "foodie", "garden", "grwm", "hometown",
    "learnwithme", "lifehack", "music", "nature", "oddlysatisfying", "ootd", "outdoors", "plants",
    "pov", "school", "skate", "smallbusiness", "storytime", "streetfood", "study", "thrift",
    "travel", "tutorial", "vlog", "weekend",
];

/// First halves of handles.
#[rustfmt::skip]
pub(super) static ADJECTIVES: &[&str] = &[
    "absent", "amber", "arctic", "awkward", "bashful", "basic", "bold", "brave", "breezy", "bright",
    "bubbly", "calm", "candid", "caramel", "cheeky", "chilly", "classic", "clever", "clumsy",
    "cobalt", "coral", "cosmic", "cozy", "crimson", "crispy", "curious", "daily", "dapper", "dizzy",
    "dreamy", "dusty", "early", "electric", "epic", "fancy", "feral", "fluffy", "foggy", "frosty",
    "funky", "fuzzy", "gentle", "giddy", "golden", "grumpy", "happy", "hazy", "honest", "humble",
    "hungry", "indie", "jolly", "jumpy", "kind", "late", "lazy", "lilac", "little", "lofty", "lost",
    "loud", "lucky", "mellow", "mighty", "minty", "misty", "modern", "moody", "neon", "nifty",
    "nimble", "noisy", "odd", "peachy", "plain", "polite", "proud", "quick", "quiet", "rainy",
    "retro", "rusty", "salty", "shiny", "shy", "silly", "sleepy", "sneaky", "snowy", "spicy",
    "sunny", "swift", "tiny", "urban", "velvet", "vivid", "wild", "witty", "wobbly", "zesty",
];

/// Second halves of handles.
#[rustfmt::skip]
pub(super) static NOUNS: &[&str] = &[
    "acorn", "anchor", "apricot", "avocado", "badger", "bagel", "banjo", "beaver", "beetle",
    "biscuit", "bonsai", "breeze", "brook", "bubble", "burrito", "cactus", "camper", "canoe",
    "cassette", "cedar", "cello", "cherry", "cloud", "clover", "coconut", "comet", "compass",
    "cookie", "cricket", "cupcake", "daisy", "dolphin", "donut", "dragon", "drummer", "dumpling",
    "ember", "falcon", "feather", "ferret", "fiddle", "flamingo", "forest", "fox", "galaxy",
    "gecko", "ginger", "giraffe", "guitar", "hamster", "harbor", "hedgehog", "heron", "hiker",
    "iguana", "island", "jackal", "jasmine", "jelly", "jigsaw", "kayak", "kettle", "kiwi", "koala",
    "lagoon", "lantern", "lemon", "lobster", "lotus", "magpie", "mango", "maple", "marble",
    "meadow", "meteor", "moth", "muffin", "nebula", "noodle", "nutmeg", "oasis", "octopus", "olive",
    "orbit", "orchid", "otter", "panda", "papaya", "parrot", "peanut", "pebble", "penguin",
    "pepper", "pickle", "pigeon", "pixel", "planet", "potato", "pretzel", "pumpkin", "puzzle",
    "quokka", "rabbit", "raccoon", "ripple", "robin", "rocket", "saddle", "scooter", "shadow",
    "skater", "sparrow", "sprout", "squid", "sunset", "teapot", "thimble", "tulip", "turtle",
    "walnut",
];
